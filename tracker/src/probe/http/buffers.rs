//! The buffers of one request.

/// How much is read at once: one TLS record.
const INPUT_BYTES: usize = 16 * 1024;

/// Space for the request line and the headers of the probe.
const REQUEST_BYTES: usize = 2 * 1024;

/// The request to send, and the input that was received and not yet consumed.
///
/// The input buffer starts empty and grows up to `input_bytes_max`.
#[derive(Debug)]
pub(crate) struct IoBuffers {
    pub(crate) output: Vec<u8>,
    pub(crate) input: Vec<u8>,
    start: usize,
    end: usize,
    input_bytes_max: usize,
    /// Whether the last call of `consume` consumed anything. If not, the reader needs
    /// more input first.
    pub(crate) has_progress: bool,
}

impl IoBuffers {
    /// `url_bytes` is the length of the URL and the credentials, `header_bytes` the
    /// length of the target's headers.
    pub(crate) fn new(url_bytes: usize, header_bytes: usize, input_bytes_max: usize) -> Self {
        Self {
            // The request line has the URL, the Host header its host once more.
            output: vec![0; 2 * url_bytes + header_bytes + REQUEST_BYTES],
            input: Vec::new(),
            start: 0,
            end: 0,
            input_bytes_max,
            has_progress: false,
        }
    }

    pub(crate) fn unconsumed(&self) -> &[u8] {
        &self.input[self.start..self.end]
    }

    pub(crate) fn is_full(&self) -> bool {
        self.end - self.start >= self.input_bytes_max
    }

    /// Space to receive into. It is empty only if the buffer is full.
    pub(crate) fn free_space(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.input.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.input.len() {
            let longer = (2 * self.end).max(INPUT_BYTES).min(self.input_bytes_max);
            self.input.resize(longer.max(self.end), 0);
        }
        &mut self.input[self.end..]
    }

    /// Marks the first bytes of the free space as received.
    pub(crate) fn add_received(&mut self, bytes: usize) {
        self.end += bytes;
    }

    pub(crate) fn consume(&mut self, bytes: usize) {
        self.has_progress = bytes > 0;
        self.start += bytes;
    }
}
