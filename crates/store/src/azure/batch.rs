//! Deleting: several at once by Blob Batch, a POST whose parts are requests with an authorization of their own, and
//! whose answer has a part for each, in any order.

use std::collections::HashMap;

use azure_core::http::headers::HeaderName;
use azure_core::http::{Method, Request};
use futures::{StreamExt, stream};

use super::client::Client;
use super::failure;
use super::{Inner, text};
use crate::contract::Result;
use crate::error::Kind;
use crate::failure::{Failure, Passing};
use crate::key::Key;

const BATCH: usize = 256;
/// Single deletes at once, where the server has no batch.
const PARALLEL: usize = 16;

/// The failures by place in the batch.
type Failures = HashMap<usize, Failure>;

pub(super) async fn delete(inner: &Inner, keys: &[Key]) -> Result<Vec<Result<()>>> {
    if let [key] = keys {
        return Ok(vec![one(inner, key).await]);
    }
    let mut outcomes = Vec::with_capacity(keys.len());
    for batch in keys.chunks(BATCH) {
        let at = inner.at("delete", "");
        let names = batch.iter().map(|key| inner.full(key, &at)).collect::<Result<Vec<_>>>()?;
        let at = inner.at("delete", &format!("({} keys)", names.len()));
        let request = || attempt(&inner.client, &names);
        match inner.retry.run(&at, 0, request).await {
            Ok(mut failures) => outcomes.extend(batch.iter().enumerate().map(|(place, key)| {
                let at = inner.at("delete", key.as_str());
                failures.remove(&place).map_or(Ok(()), |failure| Err(failure.error(&at, 1)))
            })),
            Err(error) if error.kind == Kind::Unsupported => {
                let deletes: Vec<_> = batch.iter().map(|key| one(inner, key)).collect();
                outcomes.extend(stream::iter(deletes).buffered(PARALLEL).collect::<Vec<_>>().await);
            }
            Err(error) => outcomes.extend(batch.iter().map(|key| {
                let at = inner.at("delete", key.as_str());
                Err(at.error(error.kind, &error.detail))
            })),
        }
    }
    Ok(outcomes)
}

pub(super) async fn one(inner: &Inner, key: &Key) -> Result<()> {
    single(inner, key, None).await
}

/// One version, which is not the current one.
pub(super) async fn version(inner: &Inner, key: &Key, version: &str) -> Result<()> {
    single(inner, key, Some(version)).await
}

async fn single(inner: &Inner, key: &Key, version: Option<&str>) -> Result<()> {
    let at = inner.at("delete", key.as_str());
    let full = inner.full(key, &at)?;
    let request = || async {
        let sent = inner.client.blob(&full, version)?.delete(None).await;
        match sent.map(drop).map_err(failure::of) {
            Err(failure) if is_absent(&failure) => Ok(()),
            other => other,
        }
    };
    inner.retry.run(&at, 0, request).await
}

fn is_absent(failure: &Failure) -> bool {
    failure.kind == Kind::NotFound && !failure.code.starts_with("Container")
}

/// A failure that may pass fails the attempt, so that it is repeated: deletes may be.
async fn attempt(client: &Client, names: &[String]) -> std::result::Result<Failures, Failure> {
    let boundary = format!("batch_{}", uuid::Uuid::new_v4());
    let mut url = client.container_url();
    url.set_query(Some("restype=container&comp=batch"));
    let mut request = client.request(Method::Post, url);
    request.insert_header("content-type", format!("multipart/mixed; boundary={boundary}"));
    request.set_body(body(client, names, &boundary).await?);
    let answer = client.send(request, &[202]).await?;
    let kind = text(answer.headers(), "content-type").unwrap_or_default();
    let boundary = boundary_of(kind).ok_or_else(|| unclear("its answer is no multipart text"))?;
    let mut parts = read(&String::from_utf8_lossy(answer.body()), boundary);
    // A batch that is refused as a whole may answer by one part that is nobody's.
    if let Some(Part { place: None, status, code, .. }) = parts.first()
        && *status >= 300
    {
        return Err(failure::said(*status, code, Some("the whole batch"), None));
    }
    let mut failures = Failures::new();
    for place in 0..names.len() {
        let found = parts.iter().position(|part| part.place == Some(place));
        let part = found.map(|found| parts.swap_remove(found));
        let part =
            part.ok_or_else(|| unclear(&format!("it says nothing of {} of {}", place + 1, names.len())))?;
        if (200..300).contains(&part.status) {
            continue;
        }
        let told = failure::said(part.status, &part.code, part.message.as_deref(), part.request.as_deref());
        if told.may_pass() {
            return Err(told);
        }
        if !is_absent(&told) {
            failures.insert(place, told);
        }
    }
    Ok(failures)
}

fn unclear(flaw: &str) -> Failure {
    Failure::new(Kind::Unavailable, Passing::Transient, true, format!("a batch of deletes: {flaw}"))
}

async fn body(client: &Client, names: &[String], boundary: &str) -> std::result::Result<String, Failure> {
    let mut body = String::new();
    for (place, name) in names.iter().enumerate() {
        let mut request = Request::new(client.blob_url(name), Method::Delete);
        client.access.authorize(&mut request).await.map_err(failure::of)?;
        body.push_str(&format!(
            "--{boundary}\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\
            Content-ID: {place}\r\n\r\nDELETE {} HTTP/1.1\r\n",
            request.path_and_query()
        ));
        for name in ["x-ms-date", "authorization"] {
            if let Some(value) = request.headers().get_optional_str(&HeaderName::from_static(name)) {
                body.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        body.push_str("Content-Length: 0\r\n\r\n");
    }
    body.push_str(&format!("--{boundary}--\r\n"));
    Ok(body)
}

fn boundary_of(content_type: &str) -> Option<&str> {
    let kind = content_type.split(';').next()?.trim();
    let boundary = content_type.split(';').find_map(|word| word.trim().strip_prefix("boundary="))?;
    let boundary = boundary.trim_matches('"');
    (kind.eq_ignore_ascii_case("multipart/mixed") && !boundary.is_empty()).then_some(boundary)
}

/// One request's answer.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    place: Option<usize>,
    status: u16,
    code: String,
    message: Option<String>,
    request: Option<String>,
}

/// The parts that can be read.
fn read(body: &str, boundary: &str) -> Vec<Part> {
    body.split(&format!("--{boundary}")).skip(1).filter_map(read_part).collect()
}

fn read_part(part: &str) -> Option<Part> {
    let mut lines = part.lines().map(str::trim);
    let value = |line: &str, name: &str| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    };
    let mut place = None;
    let status = loop {
        let line = lines.next()?;
        if let Some(rest) = line.strip_prefix("HTTP/1.") {
            break rest.split(' ').nth(1)?.parse().ok()?;
        }
        place = value(line, "Content-ID").and_then(|id| id.parse().ok()).or(place);
    };
    let mut read = Part { place, status, code: String::new(), message: None, request: None };
    for line in lines.by_ref().take_while(|line| !line.is_empty()) {
        if let Some(code) = value(line, "x-ms-error-code") {
            read.code = code;
        }
        read.request = value(line, "x-ms-request-id").or(read.request);
        // Some servers repeat the place here.
        read.place = read.place.or_else(|| value(line, "Content-ID").and_then(|id| id.parse().ok()));
    }
    let rest: String = lines.collect::<Vec<_>>().join("\n");
    read.message = failure::element(&rest, "Message").map(str::to_owned);
    if read.code.is_empty() {
        read.code = failure::element(&rest, "Code").unwrap_or_default().to_owned();
    }
    Some(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_in_any_order() {
        let text = "--b_1\r\nContent-Type: application/http\r\nContent-ID: 1\r\n\r\nHTTP/1.1 404 The specified blob does not exist.\r\n\
            x-ms-error-code: BlobNotFound\r\nx-ms-request-id: R1\r\nContent-Length: 9\r\n\r\n<?xml?><Error><Code>BlobNotFound</Code>\
            <Message>None.\nTime</Message></Error>\r\n--b_1\r\nContent-ID: 0\r\n\r\nHTTP/1.1 202 Accepted\r\nServer: x\r\n\r\n\r\n--b_1--\r\n";
        let parts = read(text, "b_1");
        assert_eq!(parts.len(), 2, "{parts:?}");
        assert_eq!((parts[0].place, parts[0].status, parts[0].code.as_str()), (Some(1), 404, "BlobNotFound"));
        assert_eq!(parts[0].message.as_deref(), Some("None.\nTime"));
        assert_eq!((parts[1].place, parts[1].status, parts[1].code.as_str()), (Some(0), 202, ""));
        for torn in
            [&text[..60], "--b_1\r\nContent-ID: x\r\n\r\nHTTP/1.1 ab\r\n", "", "--b_1--", "HTTP/1.1 202 A"]
        {
            assert!(read(torn, "b_1").is_empty(), "{torn}");
        }
        assert_eq!(boundary_of("multipart/mixed; boundary=b_1"), Some("b_1"));
        assert_eq!(boundary_of("text/html; boundary=b_1"), None);
        assert_eq!(boundary_of("multipart/mixed"), None);
    }
}
