//! The buffers of one request: small, and the input's grows to its bound.

/// What is read at once: a TLS record's worth.
const INPUT_BYTES: usize = 16 * 1024;

/// Room for the request beside its target and credentials.
const REQUEST_BYTES: usize = 2 * 1024;

/// A request to be sent, and input that was read and not yet used.
#[derive(Debug)]
pub(crate) struct IoBuffers {
    pub(crate) output: Vec<u8>,
    /// Empty until something comes.
    pub(crate) input: Vec<u8>,
    start: usize,
    end: usize,
    bound: usize,
    /// Whether the last look at the input used any of it; if not, more is
    /// needed before another look.
    pub(crate) progress: bool,
}

impl IoBuffers {
    /// For a request whose target, which after a redirect may be long, and
    /// credentials, which may be a token, have this length, and whose other
    /// headers that one; and an answer of which at most so many bytes are kept
    /// unused.
    pub(crate) fn new(long_bytes: usize, header_bytes: usize, bound: usize) -> Self {
        Self {
            // The target stands in the request line, its host once more.
            output: vec![0; 2 * long_bytes + header_bytes + REQUEST_BYTES],
            input: Vec::new(),
            start: 0,
            end: 0,
            bound,
            progress: false,
        }
    }

    /// What was read and not yet used.
    pub(crate) fn unused(&self) -> &[u8] {
        &self.input[self.start..self.end]
    }

    /// Whether as much is unused as may be.
    pub(crate) fn is_full(&self) -> bool {
        self.end - self.start >= self.bound
    }

    /// Room to read into; empty only when they are full.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.input.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.input.len() {
            let longer = (2 * self.end).max(INPUT_BYTES).min(self.bound);
            self.input.resize(longer.max(self.end), 0);
        }
        &mut self.input[self.end..]
    }

    /// So much of the room was filled.
    pub(crate) fn filled(&mut self, bytes: usize) {
        self.end += bytes;
    }

    /// So much of the input was used.
    pub(crate) fn used(&mut self, bytes: usize) {
        self.progress = bytes > 0;
        self.start += bytes;
    }
}
