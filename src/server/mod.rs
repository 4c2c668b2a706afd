//! One real node.
