//! Gives bytes to every decoder: what the fuzz targets and the seeded tests run. It returns nothing, since
//! only a panic, a hang or an absurd allocation is a finding; where a decoder accepts, what it accepted must
//! encode to the same bytes again.

use varve_format::*;

/// Each decoder alone, over the same bytes.
pub fn decode_all(bytes: &[u8], key: &DataKey, ring: &KeyRing) {
    object(bytes, key);
    footer_alone(bytes, key);
    if let Ok(metadata) = CustomMetadata::decode(bytes) {
        assert!(bytes.len() <= 121 && metadata.object_bytes() >= 64);
        assert_eq!(metadata.encode().ok().as_deref(), Some(bytes));
    }
    if let Ok(record) = KeyRecord::decode(bytes) {
        let _ = record.unwrap(ring);
        let again = record.encode().map(|json| KeyRecord::decode(&json));
        assert_eq!(again, Ok(Ok(record)));
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        if let Ok(ring) = KeyRing::parse(text) {
            assert!(ring.active().len() <= 64);
        }
        if let Ok(id) = Id::parse(text) {
            assert_eq!(id.to_string(), text);
        }
        if let Ok(name) = SegmentName::parse(text) {
            assert_eq!(segment_name(&name), text);
        }
        if let Some(name) = KeyRecordName::parse(text) {
            assert!(text == name.record() || text == tombstone_name(&name.record()));
        }
    }
}

/// As an object: trailer, footer, every frame. Lengths are the object's own.
pub fn object(bytes: &[u8], key: &DataKey) {
    let Some(tail) = bytes.last_chunk::<TRAILER_BYTES>() else { return };
    let Ok(trailer) = Trailer::decode(tail, bytes.len() as u64) else { return };
    assert_eq!(trailer.encode().as_slice(), tail);
    let end = bytes.len() - TRAILER_BYTES;
    let footer_bytes = usize::try_from(trailer.footer_offset).ok().and_then(|at| bytes.get(at..end));
    read(bytes, footer_bytes.unwrap_or_default(), &trailer, key);
}

/// As a footer, whose trailer an attacker has made to fit. The last 25 bytes are the trailer's values.
pub fn footer_alone(bytes: &[u8], key: &DataKey) {
    let Some((footer, tail)) = bytes.split_last_chunk::<25>() else { return };
    let number = |at: usize| tail.iter().skip(at).take(8).fold(0, |n, b| (n << 8) | u64::from(*b));
    let trailer = Trailer {
        data_end: number(0),
        footer_offset: number(8),
        footer_bytes: u32::try_from(footer.len()).unwrap_or(u32::MAX),
        version: FORMAT_VERSION,
        features: Features { required: u64::from(tail[16]), optional: number(17) },
        footer_crc: crc32c::crc32c(footer),
    };
    read(&[], footer, &trailer, key);
}

fn read(object: &[u8], footer_bytes: &[u8], trailer: &Trailer, key: &DataKey) {
    let Ok(mut footer) = Footer::decode(footer_bytes, trailer) else { return };
    assert!(footer.info.check().is_ok());
    let object_key = footer.encryption.as_ref().and_then(|e| key.object_key(&e.salt, footer.object_id).ok());
    if let Some(object_key) = &object_key
        && footer.unlock(footer_bytes, object_key, trailer.footer_offset).is_err()
    {
        assert!(Decoder::new(&footer, Some(object_key)).is_err());
        return;
    }
    let Ok(mut decoder) = Decoder::new(&footer, object_key.as_ref()) else { return };
    let mut plain = Vec::new();
    let mut position = 0;
    for number in 0..footer.frame_count() {
        let Ok(frame) = footer.frame(number) else { panic!("frame {number} of {}", footer.frame_count()) };
        assert_eq!(frame.stored.start, position, "frames are neighbours");
        assert!(frame.plain_bytes > 0 && frame.plain_bytes <= FRAME_MAX_BYTES);
        position = frame.stored.end;
        plain.resize(frame.plain_bytes as usize, 0);
        let stored = frame.stored.start as usize..frame.stored.end as usize;
        let _ = self::frame(&mut decoder, &frame, object.get(stored).unwrap_or_default(), &mut plain);
    }
    assert_eq!(position, trailer.footer_offset);
    assert!(footer.frame(footer.frame_count()).is_err());
    for position in [0, 1, footer.log_bytes.saturating_sub(1), footer.log_bytes, u64::MAX] {
        let chunk = footer.chunk_at(position);
        assert_eq!(chunk.is_some(), position < footer.log_bytes);
        if let Some(chunk) = chunk {
            let frame = footer.frame_at(position);
            assert!(chunk.plain_offset <= position && position - chunk.plain_offset < chunk.plain_bytes);
            assert!(chunk.first_frame <= frame && frame - chunk.first_frame < chunk.frame_count());
        }
    }
}

/// Both ways, which must agree: into `plain`, and where a frame that is not compressed lies.
pub fn frame(decoder: &mut Decoder<'_>, frame: &FrameRef, stored: &[u8], plain: &mut [u8]) -> Result<()> {
    let decoded = decoder.decode(frame, stored, plain);
    let mut bytes = stored.to_vec();
    let in_place = decoder.decode_in_place(frame, &mut bytes);
    match (frame.codec, &decoded, in_place) {
        (Codec::Zstd, _, in_place) => assert!(in_place.is_err(), "in place, compressed"),
        (Codec::None, Ok(()), in_place) => assert_eq!(&bytes[..in_place.unwrap()], plain),
        (Codec::None, Err(e), in_place) => assert!(in_place.is_err(), "in place alone, for {e}"),
    }
    decoded
}
