//! Reading: segments that are open ([`segment`]), their frames in memory ([`cache`]), the requests that fetch
//! them ([`fetch`]), and the streams that Java reads ([`stream`]).

pub mod cache;
pub mod fetch;
pub mod index;
pub mod segment;
pub mod stream;
pub mod tracker;
