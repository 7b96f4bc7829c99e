//! The unit of text: a document.

/// One document of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The text, exactly as read.
    pub text: String,
    /// Where it came from, for messages: `file:line`, `file row N`, or the number of a generated story.
    pub place: String,
}
