//! The state of a cluster, as a document that snapshots hold: all that a restored cluster needs beside its topics.
