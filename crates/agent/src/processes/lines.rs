//! Finding a text in the lines of a stream that comes in pieces.

/// Bytes of one line that are kept around the text.
const LONGEST: usize = 64 << 10;

/// Looks for a text line by line.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    text: &'a [u8],
    finder: memchr::memmem::Finder<'a>,
    /// The line so far, or its end if it is long.
    line: Vec<u8>,
    /// Where in `line` the text may still begin.
    from: usize,
    hit: bool,
    done: bool,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        let finder = memchr::memmem::Finder::new(text);
        Self { text, finder, line: Vec::new(), from: 0, hit: false, done: false }
    }

    /// The line with the text; one that has no end yet only if `unfinished`.
    pub(super) fn found(&self, unfinished: bool) -> Option<&[u8]> {
        (self.done || unfinished && self.hit).then(|| self.line.strip_suffix(b"\r").unwrap_or(&self.line))
    }

    /// Bytes are missing here.
    pub(super) fn gap(&mut self) {
        if self.hit {
            self.done = true;
        } else {
            self.line.clear();
            self.from = 0;
        }
    }

    /// Takes the next bytes.
    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        while !self.done && !bytes.is_empty() {
            let end = memchr::memchr(b'\n', bytes);
            let (piece, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
            self.extend(piece);
            if end.is_none() {
                return;
            }
            bytes = &rest[1..];
            if self.hit {
                self.done = true;
            } else {
                self.line.clear();
                self.from = 0;
            }
        }
    }

    fn extend(&mut self, piece: &[u8]) {
        if self.hit {
            let room = LONGEST.saturating_sub(self.line.len());
            self.line.extend_from_slice(&piece[..piece.len().min(room)]);
            return;
        }
        self.line.extend_from_slice(piece);
        if let Some(at) = self.finder.find(&self.line[self.from..]) {
            self.hit = true;
            // The text with what stands before it, as much as there is room for, and what follows.
            let end = self.from + at + self.text.len();
            let begin = end.saturating_sub(LONGEST);
            self.line.drain(..begin);
            self.line.truncate(LONGEST.max(self.text.len()));
            return;
        }
        let keep = self.line.len().min(LONGEST);
        self.line.drain(..self.line.len() - keep);
        self.from = self.line.len().saturating_sub(self.text.len() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn find(text: &str, pieces: &[&[u8]], unfinished: bool) -> Option<String> {
        let mut lines = Lines::new(text.as_bytes());
        for piece in pieces {
            lines.push(piece);
        }
        lines.found(unfinished).map(|line| String::from_utf8_lossy(line).into_owned())
    }

    #[test]
    fn p04_a_text_is_found_within_one_line() {
        assert_eq!(
            find("ready", &[b"a\nserver rea", b"dy on 80\r\nb\n"], false).unwrap(),
            "server ready on 80"
        );
        assert_eq!(find("ready", &[b"rea\ndy\n"], true), None);
        assert_eq!(find("> ", &[b"name> "], false), None, "its line has no end");
        assert_eq!(find("> ", &[b"name> "], true).unwrap(), "name> ");
    }

    #[test]
    fn p04_long_lines_cost_bounded_memory() {
        let mut lines = Lines::new(b"needle");
        for _ in 0..100 {
            lines.push(&[b'x'; 64 << 10]);
            assert!(lines.line.len() <= LONGEST);
        }
        lines.push(b"nee");
        lines.push(b"dle and more\n");
        let line = lines.found(false).unwrap();
        assert!(line.len() <= LONGEST && line.windows(6).any(|part| part == b"needle"));
    }

    proptest! {
        #[test]
        fn p04_pieces_make_no_difference(text in "[ab\n]{0,60}", pattern in "[ab]{1,4}", step in 1usize..9) {
            let expected = text.split('\n').find(|line| line.contains(&pattern)).map(str::to_owned);
            let pieces: Vec<_> = text.as_bytes().chunks(step).collect();
            prop_assert_eq!(find(&pattern, &pieces, true), expected);
        }
    }
}
