//! An export with one JSON object in each line. A key or value that is not UTF-8 is in base64, in a field of another
//! name.
//!
//! ```text
//! {"key":"/a","value":"v","created_index":3,"modified_index":7,"expiration":"2026-05-04T12:00:00Z"}      a v2 key
//! {"key":"/d","dir":true,"created_index":3,"modified_index":3}                                           a v2
//! directory {"key_base64":"/w==","value":"v","create_revision":3,"mod_revision":7,"version":1,"lease":0}           a
//! v3 key ```
//!
//! Must not know where the records come from.

use std::borrow::Cow;
use std::io::BufRead;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::record::{Record, Records, What};
use crate::display;
use crate::error::{Error, Reason, Result};

/// Bytes of text to collect before a write.
const FLUSH_BYTES: usize = 1 << 18;

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    key: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    dir: bool,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    value: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_index: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    modified_index: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    create_revision: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mod_revision: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<i64>,
}

/// Passes the lines of all records to `emit`, many at a time.
///
/// # Errors
/// That of `emit`.
pub fn write(records: &dyn Records, emit: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut text = Vec::with_capacity(2 * FLUSH_BYTES);
    records.each(&mut |record| {
        display::write_json(&mut text, &Line::of(record))
            .map_err(|e| Error::new(Reason::Internal, format!("cannot write a record as JSON: {e}")))?;
        text.push(b'\n');
        if text.len() < FLUSH_BYTES {
            return Ok(());
        }
        let emitted = emit(&text);
        text.clear();
        emitted
    })?;
    emit(&text)
}

/// Compares a text with the records that were written into it.
///
/// # Errors
/// [`Reason::VerifyFailed`] with the first line that differs; the text cannot be read.
pub fn compare(text: &mut dyn BufRead, records: &dyn Records) -> Result<()> {
    let (mut number, mut line) = (0u64, Vec::new());
    let mut next = |line: &mut Vec<u8>| {
        line.clear();
        let read = text.read_until(b'\n', line);
        read.map_err(|e| Error::new(Reason::VerifyFailed, format!("cannot read the export back: {e}")))
    };
    records.each(&mut |record| {
        number += 1;
        next(&mut line)?;
        let found = serde_json::from_slice::<Line<'_>>(&line);
        if line.ends_with(b"\n") && found.is_ok_and(|found| found == Line::of(record)) {
            return Ok(());
        }
        Err(Error::new(
            Reason::VerifyFailed,
            format!("line {number} of the export differs from the record that was written"),
        ))
    })?;
    if next(&mut line)? == 0 {
        return Ok(());
    }
    Err(Error::new(
        Reason::VerifyFailed,
        format!("expected the end of the export after line {number}, found more data"),
    ))
}

impl<'a> Line<'a> {
    fn of(record: &'a Record<'_>) -> Line<'a> {
        let (key, key_base64) = text_or_base64(&record.key);
        let mut line = Line { key, key_base64, ..Line::default() };
        let value = match &record.what {
            What::Node { created, modified, expiration, value } => {
                line.dir = value.is_none();
                (line.created_index, line.modified_index) = (Some(created.0), Some(modified.0));
                line.expiration = expiration.map(|at| at.to_string());
                value.as_ref()
            }
            What::Pair { create, modified, version, lease, value } => {
                (line.create_revision, line.mod_revision) = (Some(create.0), Some(modified.0));
                (line.version, line.lease) = (Some(*version), Some(lease.0));
                Some(value)
            }
        };
        if let Some(value) = value {
            (line.value, line.value_base64) = text_or_base64(value);
        }
        line
    }
}

fn text_or_base64(bytes: &[u8]) -> (Option<Cow<'_, str>>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(Cow::Borrowed(text)), None),
        Err(_) => (None, Some(STANDARD.encode(bytes))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::record::ExportKind;
    use crate::ids::{LeaseId, Revision, V2Index};

    struct Some3;

    impl Records for Some3 {
        fn kind(&self) -> ExportKind {
            ExportKind::V2
        }

        fn facts(&self) -> Vec<(&'static str, String)> {
            Vec::new()
        }

        fn len(&self) -> usize {
            3
        }

        fn each(&self, show: &mut dyn FnMut(&Record<'_>) -> Result<()>) -> Result<()> {
            let node = |value: Option<&'static [u8]>, expiration| What::Node {
                created: V2Index(3),
                modified: V2Index(7),
                expiration,
                value: value.map(Cow::Borrowed),
            };
            let at = "2026-05-04T12:00:00.5Z".parse().ok();
            let (create, modified) = (Revision(3), Revision(7));
            let pair = What::Pair { create, modified, version: 1, lease: LeaseId(0), value: Cow::Borrowed(b"\xfe") };
            show(&Record { key: Cow::Borrowed("/\n\u{2028}ä".as_bytes()), what: node(Some(b""), at) })?;
            show(&Record { key: Cow::Borrowed(b"/d"), what: node(None, None) })?;
            show(&Record { key: Cow::Borrowed(b"\xff"), what: pair })
        }
    }

    fn text() -> Vec<u8> {
        let mut text = Vec::new();
        write(&Some3, &mut |bytes| {
            text.extend_from_slice(bytes);
            Ok(())
        })
        .unwrap();
        text
    }

    #[test]
    fn lines_are_as_documented() {
        let expected = concat!(
            r#"{"key":"/\n\u2028ä","value":"","created_index":3,"modified_index":7,"expiration":"2026-05-04T12:00:00.5Z"}"#,
            "\n",
            r#"{"key":"/d","dir":true,"created_index":3,"modified_index":7}"#,
            "\n",
            r#"{"key_base64":"/w==","value_base64":"/g==","create_revision":3,"mod_revision":7,"version":1,"lease":0}"#,
            "\n"
        );
        assert_eq!(String::from_utf8(text()).unwrap(), expected);
    }

    #[test]
    fn whatever_is_not_as_written_is_found() {
        let text = text();
        compare(&mut &text[..], &Some3).unwrap();
        for len in 0..text.len() {
            assert_eq!(compare(&mut &text[..len], &Some3).unwrap_err().reason(), Reason::VerifyFailed, "{len}");
        }
        for at in 0..text.len() {
            let mut changed = text.clone();
            changed[at] ^= 1;
            assert!(compare(&mut &changed[..], &Some3).is_err(), "byte {at}");
        }
        assert!(compare(&mut &[&text[..], b"{}\n"].concat()[..], &Some3).is_err());
    }
}
