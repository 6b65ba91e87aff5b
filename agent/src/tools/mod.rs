//! One handler for each tool, in a file named after it.
