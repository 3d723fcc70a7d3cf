//! Objects that the encoder would not write: its own, changed at one place, all lengths and checksums (and if
//! asked for, seals) put right again, so that nothing but the change is wrong or unknown.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hmac;

use super::*;

/// `bytes` at `at` of the trailer.
pub fn trailer_bytes(object: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    changed(object, |o| {
        let start = o.len() - TRAILER_BYTES + at;
        o[start..start + bytes.len()].copy_from_slice(bytes);
        repair_checksums(o);
    })
}

/// The value of the footer's field `tag`.
pub fn value(object: &[u8], tag: u16) -> Vec<u8> {
    let footer = footer_bytes(object, &trailer(object).unwrap());
    let (at, end) = (place_of(footer, tag), place_of(footer, tag + 1));
    footer[at + 6..end].to_vec()
}

/// Another value in the footer's field `tag`, or a new field.
pub fn put(object: &[u8], tag: u16, value: &[u8]) -> Vec<u8> {
    with_footer(object, |mut footer| {
        let (at, end) = (place_of(&footer, tag), place_of(&footer, tag + 1));
        footer.splice(at..end, field(tag, value));
        footer
    })
}

/// These feature bits more (or less), in the trailer and in field 21.
pub fn flip_features(object: &[u8], required: u64, optional: u64) -> Vec<u8> {
    let features = trailer(object).unwrap().features;
    let features =
        [features.required ^ required, features.optional ^ optional].map(u64::to_be_bytes).concat();
    trailer_bytes(&put(object, 21, &[&[0, 1][..], &features].concat()), 24, &features)
}

/// An entry of the extent table, with whatever it says.
#[derive(Clone)]
pub struct Entry {
    pub kind: u8,
    pub codec: u8,
    pub reserved: u16,
    pub plain_bytes: u64,
    pub stored_bytes: u64,
    pub crcs: Vec<u32>,
    pub lengths: Vec<u32>,
}

pub fn entries(object: &[u8]) -> Vec<Entry> {
    let (footer, _) = open(object, None).unwrap();
    let lengths = |e: &Extent| {
        let frames = e.first_frame..e.first_frame + e.frame_count();
        frames.map(|n| footer.frame(n).unwrap().stored).map(|s| (s.end - s.start) as u32).collect()
    };
    let entry = |e: &Extent| Entry {
        kind: e.kind.code(),
        codec: if e.codec == Codec::Zstd { 1 } else { 0 },
        reserved: 0,
        plain_bytes: e.plain_bytes,
        stored_bytes: e.stored_bytes,
        crcs: e.crcs.clone(),
        lengths: if e.codec == Codec::Zstd { lengths(e) } else { Vec::new() },
    };
    footer.extents.iter().map(entry).collect()
}

/// Field 18.
pub fn table(entries: &[Entry]) -> Vec<u8> {
    let mut out = (entries.len() as u32).to_be_bytes().to_vec();
    for e in entries {
        out.extend([e.kind, e.codec]);
        out.extend(e.reserved.to_be_bytes());
        out.extend(e.plain_bytes.to_be_bytes());
        out.extend(e.stored_bytes.to_be_bytes());
        e.crcs.iter().chain(&e.lengths).for_each(|n| out.extend(n.to_be_bytes()));
    }
    out
}

pub fn with_entries(object: &[u8], change: impl FnOnce(&mut Vec<Entry>)) -> Vec<u8> {
    let mut entries = entries(object);
    change(&mut entries);
    put(object, 18, &table(&entries))
}

/// Of an object of one frame, compressed, the frame's stored bytes.
pub fn only_frame(object: &[u8]) -> Vec<u8> {
    object[..trailer(object).unwrap().footer_offset as usize].to_vec()
}

/// An object of one frame, compressed, with these stored bytes instead.
pub fn with_only_frame(object: &[u8], stored: &[u8]) -> Vec<u8> {
    let object = with_entries(object, |e| {
        e[0].stored_bytes = stored.len() as u64;
        e[0].crcs = vec![crc32c::crc32c(stored)];
        e[0].lengths = vec![stored.len() as u32];
    });
    let old = trailer(&object).unwrap();
    let end = stored.len() as u64;
    let new = Trailer { data_end: end, footer_offset: end, ..old };
    [stored, footer_bytes(&object, &old), &new.encode()].concat()
}

/// As [`flip_features`], of an encrypted object, by one who has the data key.
pub fn flip_sealed_features(object: &[u8], secret: &[u8; 32], required: u64, optional: u64) -> Vec<u8> {
    let old = trailer(object).unwrap().features;
    let features = [old.required ^ required, old.optional ^ optional].map(u64::to_be_bytes).concat();
    let public = |bytes: Vec<u8>| {
        let at = place_of(&bytes, 21) + 6;
        changed(&bytes, |b| b[at + 2..at + 18].copy_from_slice(&features))
    };
    trailer_bytes(&resealed(object, secret, public, |private| private), 24, &features)
}

/// An encrypted object whose footer, public and sealed, was changed by one who has the data key.
pub fn resealed(
    object: &[u8],
    secret: &[u8; 32],
    public: impl FnOnce(Vec<u8>) -> Vec<u8>,
    private: impl FnOnce(Vec<u8>) -> Vec<u8>,
) -> Vec<u8> {
    let (footer, _) = open(object, None).unwrap();
    let salt = footer.encryption.as_ref().unwrap().salt;
    let mac = |key: &[u8], parts: &[&[u8]]| {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &parts.concat()).as_ref().to_vec()
    };
    let object_key = mac(&mac(&salt, &[secret]), &[b"varve segment v1", &footer.object_id.0, &[1]]);
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &object_key).unwrap());
    let nonce = || {
        let nonce = [&[0; 4][..], &footer.frame_count().to_be_bytes()].concat();
        Nonce::try_assume_unique_for_key(&nonce).unwrap()
    };
    let aad = |public: &[u8]| Aad::from([b"varve footer v1", &footer.object_id.0[..], public].concat());
    with_footer(object, |mut bytes| {
        let at = place_of(&bytes, 0xfff1);
        let mut sealed = bytes.split_off(at).split_off(6);
        let plain = key.open_in_place(nonce(), aad(&bytes), &mut sealed).unwrap().to_vec();
        let (public, mut value) = (public(bytes), private(plain));
        key.seal_in_place_append_tag(nonce(), aad(&public), &mut value).unwrap();
        [public, field(0xfff1, &value)].concat()
    })
}
