"""What figures of matplotlib show, as data. Stands before python.py in the one program that an executor is."""

# Points of one series that are told; the picture has them all.
MAX_POINTS = 5000


def chart_of_figure(figure):
    """What a figure of matplotlib shows, as data: its series, and the axes that they belong to. None where it shows none."""
    try:
        axes = figure.get_axes()
        series = [dict(one, axes=at) for at, ax in enumerate(axes) for one in series_of(ax)]
        if not series:
            return None
        chart = {"type": series[0]["type"], "library": "matplotlib", "data": series}
        title = figure.get_suptitle() if hasattr(figure, "get_suptitle") else ""
        title = title or next((ax.get_title() for ax in axes if ax.get_title()), "")
        if title:
            chart["title"] = title
        described = [
            {"title": ax.get_title(), "xLabel": ax.get_xlabel(), "yLabel": ax.get_ylabel(), "xScale": ax.get_xscale(), "yScale": ax.get_yscale()}
            for ax in axes
        ]
        chart["layout"] = {"axes": described}
        return chart
    except Exception:
        # The code may have replaced anything: the picture is there all the same.
        return None


def series_of(ax):
    from matplotlib.collections import PathCollection
    from matplotlib.container import BarContainer
    from matplotlib.patches import Wedge

    series = []
    for container in ax.containers:
        if isinstance(container, BarContainer):
            series.append(bars(ax, container))
    for line in ax.get_lines():
        kind = "scatter" if str(line.get_linestyle()) in ("None", " ", "") else "line"
        # Those of an axis itself, such as `axhline`, have their places in other units.
        if line.get_transform() == ax.transData or line.get_transform().contains_branch(ax.transData):
            series.append(named(line, kind, x=line.get_xdata(), y=line.get_ydata()))
    for collection in ax.collections:
        if isinstance(collection, PathCollection):
            places = collection.get_offsets()
            series.append(named(collection, "scatter", x=places[:, 0], y=places[:, 1]))
    wedges = [patch for patch in ax.patches if isinstance(patch, Wedge)]
    if wedges:
        labels = [wedge.get_label() for wedge in wedges]
        shares = [(wedge.theta2 - wedge.theta1) / 360 for wedge in wedges]
        series.append({"type": "pie", "labels": ["" if label.startswith("_") else label for label in labels], "values": points(shares)})
    for image in ax.images:
        grid = image.get_array()
        if grid is not None and grid.ndim == 2 and grid.size <= MAX_POINTS:
            series.append(named(image, "heatmap", z=[points(row) for row in grid]))
    return series


def bars(ax, container):
    flat = getattr(container, "orientation", None) == "horizontal"
    place, extent = ("y", "height") if flat else ("x", "width")
    patches = container.patches
    starts = [getattr(patch, "get_" + place)() for patch in patches]
    widths = [getattr(patch, "get_" + extent)() for patch in patches]
    values = [patch.get_width() if flat else patch.get_height() for patch in patches]
    middles = [start + width / 2 for start, width in zip(starts, widths)]
    ends = [start + width for start, width in zip(starts, widths)]
    # Bars without gaps are those of a histogram.
    close = len(starts) > 1 and all(abs(end - start) < abs(width) / 1e6 for end, start, width in zip(ends, starts[1:], widths))
    if close:
        return named(container, "histogram", edges=starts + ends[-1:], counts=values)
    axis = ax.yaxis if flat else ax.xaxis
    categories = {at: text for at, text in zip(axis.get_majorticklocs(), [label.get_text() for label in axis.get_majorticklabels()])}
    names = [categories.get(middle) for middle in middles]
    # Names where there are some: bars stand at numbers otherwise.
    units = hasattr(axis.get_major_formatter(), "_units") and all(names)
    return dict(named(container, "bar", y=values), x=names if units else points(middles), **({"horizontal": True} if flat else {}))


def named(artist, kind, **values):
    one = {"type": kind}
    label = str(artist.get_label() or "")
    if label and not label.startswith("_"):
        one["label"] = label
    for name, value in values.items():
        count = len(value)
        if count > MAX_POINTS:
            one["omitted"] = count - MAX_POINTS
            value = value[:MAX_POINTS]
        one[name] = value if name == "z" else points(value)
    return one


def points(values):
    """Numbers as JSON has them; times in ISO 8601, names as they are, none for what is no number."""
    plain_values = []
    for value in values:
        value = value.item() if hasattr(value, "item") and not hasattr(value, "isoformat") else value
        if hasattr(value, "isoformat"):
            value = value.isoformat()
        elif isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
            value = None
        elif not isinstance(value, (int, float, str)):
            value = None if value is None else str(value)
        plain_values.append(value)
    return plain_values


