//! A broker that knows what it is told to say of its cluster, and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::BytesMut;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiKey, ApiVersionsResponse, MetadataResponse, ResponseHeader};
use kafka_protocol::protocol::{Encodable, HeaderVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

type Metadata = dyn Fn(usize) -> MetadataResponse + Send + Sync;

/// Its address. `metadata` is told how many answers there were before.
pub(crate) async fn broker(metadata: impl Fn(usize) -> MetadataResponse + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (metadata, answers): (Arc<Metadata>, _) = (Arc::new(metadata), Arc::new(AtomicUsize::new(0)));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, Arc::clone(&metadata), Arc::clone(&answers)));
        }
    });
    address
}

async fn serve(
    mut stream: TcpStream,
    metadata: Arc<Metadata>,
    answers: Arc<AtomicUsize>,
) -> std::io::Result<()> {
    loop {
        let length = stream.read_u32().await?;
        let (key, version) = (stream.read_i16().await?, stream.read_i16().await?);
        let id = stream.read_i32().await?;
        stream.read_exact(&mut vec![0; length as usize - 8]).await?;
        let mut answer = BytesMut::new();
        let header = ResponseHeader::default().with_correlation_id(id);
        if key == ApiKey::ApiVersions as i16 {
            let known = [ApiKey::ApiVersions, ApiKey::Metadata];
            let of = |key: ApiKey| ApiVersion::default().with_api_key(key as i16).with_max_version(12);
            let body = ApiVersionsResponse::default().with_api_keys(known.into_iter().map(of).collect());
            header.encode(&mut answer, ApiVersionsResponse::header_version(version)).unwrap();
            body.encode(&mut answer, version).unwrap();
        } else {
            header.encode(&mut answer, MetadataResponse::header_version(version)).unwrap();
            metadata(answers.fetch_add(1, Ordering::Relaxed)).encode(&mut answer, version).unwrap();
        }
        stream.write_u32(answer.len() as u32).await?;
        stream.write_all(&answer).await?;
    }
}
