//! Server-sent events, as the HTML standard defines their stream
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation>), of which this API
//! uses `data` and `id`.

use bytes::{Buf, Bytes, BytesMut};

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// The id that this event itself carried.
    pub id: Option<Bytes>,
    /// Its data; several `data` lines are joined by `\n`.
    pub data: Bytes,
}

/// An event that is longer than any right one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

/// Takes bytes as they come and gives events as they are whole. Holds at most one unfinished event.
#[derive(Debug)]
pub(crate) struct Parser {
    /// Bytes that are not yet parsed; `scanned` of them hold no line end.
    buffer: BytesMut,
    scanned: usize,
    /// The last line ended with CR, so that an LF that follows belongs to it.
    after_cr: bool,
    /// Nothing was parsed yet: a byte order mark may stand here.
    at_start: bool,
    id: Option<Bytes>,
    data: Data,
    limit: usize,
}

/// The data of the event that is being read. Nearly every event has one line, which is kept without a copy.
#[derive(Debug)]
enum Data {
    None,
    Line(Bytes),
    Lines(BytesMut),
}

impl Data {
    fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Line(line) => line.len(),
            Self::Lines(lines) => lines.len(),
        }
    }

    fn push(&mut self, line: Bytes) {
        *self = match std::mem::replace(self, Self::None) {
            Self::None => Self::Line(line),
            Self::Line(first) => {
                let mut lines = BytesMut::with_capacity(first.len() + 1 + line.len());
                lines.extend_from_slice(&first);
                lines.extend_from_slice(b"\n");
                lines.extend_from_slice(&line);
                Self::Lines(lines)
            }
            Self::Lines(mut lines) => {
                lines.extend_from_slice(b"\n");
                lines.extend_from_slice(&line);
                Self::Lines(lines)
            }
        };
    }

    fn take(&mut self) -> Option<Bytes> {
        match std::mem::replace(self, Self::None) {
            Self::None => None,
            Self::Line(line) => Some(line),
            Self::Lines(lines) => Some(lines.freeze()),
        }
    }
}

impl Parser {
    /// A parser that refuses lines and events of more than `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            scanned: 0,
            after_cr: false,
            at_start: true,
            id: None,
            data: Data::None,
            limit,
        }
    }

    /// Takes the next bytes of the stream.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole event; `None` until more bytes are pushed.
    pub(crate) fn next(&mut self) -> Result<Option<Message>, TooLong> {
        while let Some(line) = self.line()? {
            if line.is_empty() {
                let id = self.id.take();
                if let Some(data) = self.data.take() {
                    return Ok(Some(Message { id, data }));
                }
            } else {
                self.field(&line)?;
            }
        }
        Ok(None)
    }

    fn line(&mut self) -> Result<Option<Bytes>, TooLong> {
        if self.after_cr && !self.buffer.is_empty() {
            if self.buffer[0] == b'\n' {
                self.buffer.advance(1);
            }
            self.after_cr = false;
        }
        if self.at_start {
            const MARK: &[u8] = "\u{feff}".as_bytes();
            if self.buffer.len() < MARK.len() && MARK.starts_with(&self.buffer) {
                return Ok(None);
            }
            if self.buffer.starts_with(MARK) {
                self.buffer.advance(MARK.len());
            }
            self.at_start = false;
        }
        match memchr::memchr2(b'\n', b'\r', &self.buffer[self.scanned..]) {
            Some(found) => {
                let end = self.scanned + found;
                self.scanned = 0;
                if end > self.limit {
                    return Err(TooLong);
                }
                let mut line = self.buffer.split_to(end + 1);
                self.after_cr = line[end] == b'\r';
                line.truncate(end);
                Ok(Some(line.freeze()))
            }
            None => {
                self.scanned = self.buffer.len();
                if self.scanned > self.limit { Err(TooLong) } else { Ok(None) }
            }
        }
    }

    fn field(&mut self, line: &Bytes) -> Result<(), TooLong> {
        let colon = memchr::memchr(b':', line).unwrap_or(line.len());
        let mut start = (colon + 1).min(line.len());
        if line.get(start) == Some(&b' ') {
            start += 1;
        }
        match &line[..colon] {
            b"data" => {
                self.data.push(line.slice(start..));
                if self.data.len() > self.limit {
                    return Err(TooLong);
                }
            }
            b"id" if !line[start..].contains(&0) => self.id = Some(line.slice(start..)),
            // Comments (an empty name), `event`, `retry` and names of the future say nothing to this client.
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(chunks: &[&[u8]]) -> Vec<(Option<String>, String)> {
        let mut parser = Parser::new(1 << 20);
        let mut events = Vec::new();
        let text = |bytes: Bytes| String::from_utf8_lossy(&bytes).into_owned();
        for chunk in chunks {
            parser.push(chunk);
            while let Some(message) = parser.next().unwrap() {
                events.push((message.id.map(text), text(message.data)));
            }
        }
        events
    }

    fn one(text: &str) -> Vec<(Option<String>, String)> {
        parse(&[text.as_bytes()])
    }

    #[test]
    fn the_standards_own_examples() {
        assert_eq!(one("data: YHOO\ndata: +2\ndata: 10\n\n"), [(None, "YHOO\n+2\n10".into())]);
        let stream =
            ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n";
        let events = [
            (Some("1".into()), "first event".into()),
            (Some("".into()), "second event".into()),
            (None, " third event".into()),
        ];
        assert_eq!(one(stream), events);
        assert_eq!(one("data\n\ndata\ndata\n\ndata:"), [(None, "".into()), (None, "\n".into())]);
    }

    #[test]
    fn every_line_end_counts_even_across_chunks() {
        assert_eq!(one("data: a\r\n\r\ndata: b\r\rdata: c\n\n").len(), 3);
        assert_eq!(parse(&[b"data: a\r", b"\n\r", b"\ndata: b\n\n"]).len(), 2);
        assert_eq!(parse(&[b"\xef\xbb", b"\xbfdata: a\n\n"]), [(None, "a".into())]);
    }

    #[test]
    fn what_is_not_understood_is_passed_over() {
        assert_eq!(one("event: x\nretry: 5\nfoo: bar\n:\nid: a\0b\ndata: y\n\n"), [(None, "y".into())]);
        assert_eq!(one("id: 5\n\ndata: z\n\n"), [(None, "z".into())]);
    }

    #[test]
    fn an_endless_line_and_an_endless_event_are_refused() {
        let mut parser = Parser::new(1000);
        let mut outcome = Ok(None);
        for _ in 0..100 {
            parser.push(&[b'x'; 100]);
            outcome = parser.next();
            if outcome.is_err() {
                break;
            }
        }
        assert_eq!(outcome, Err(TooLong));
        assert!(parser.buffer.len() <= 1100);

        let mut parser = Parser::new(1000);
        let refused = (0..1000).any(|_| {
            parser.push(b"data: 0123456789\n");
            parser.next().is_err()
        });
        assert!(refused);
    }

    /// An event as a server would write it, with the values that it means.
    fn event() -> impl Strategy<Value = (String, (Option<String>, String))> {
        let line = "[^\r\n\0]{0,20}";
        let end = prop_oneof![Just("\n"), Just("\r\n")];
        (proptest::option::of(line), proptest::collection::vec(line, 1..4), end, any::<bool>()).prop_map(
            |(id, lines, end, comment)| {
                let mut text = String::new();
                if comment {
                    text += &format!(": ping{end}");
                }
                if let Some(id) = &id {
                    text += &format!("id: {id}{end}");
                }
                for line in &lines {
                    text += &format!("data: {line}{end}");
                }
                (text + end, (id, lines.join("\n")))
            },
        )
    }

    proptest! {
        #[test]
        fn s12_events_survive_any_cut_into_chunks(
            events in proptest::collection::vec(event(), 0..8),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..12),
        ) {
            let text: String = events.iter().map(|(text, _)| text.as_str()).collect();
            let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            ends.extend([0, text.len()]);
            ends.sort_unstable();
            let chunks: Vec<&[u8]> = ends.windows(2).map(|pair| &text.as_bytes()[pair[0]..pair[1]]).collect();
            let expected: Vec<_> = events.into_iter().map(|(_, event)| event).collect();
            prop_assert_eq!(parse(&chunks), expected);
        }

        #[test]
        fn any_bytes_are_parsed_in_bounded_memory(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..50)) {
            let mut parser = Parser::new(256);
            for chunk in &chunks {
                parser.push(chunk);
                loop {
                    match parser.next() {
                        Ok(Some(message)) => prop_assert!(message.data.len() <= 256 + 1),
                        Ok(None) => break,
                        Err(TooLong) => return Ok(()),
                    }
                }
                prop_assert!(parser.buffer.len() + parser.data.len() <= 2 * 256 + 200);
            }
        }
    }
}
