//! What a file's content is, as a media type: by its first bytes where those are certain, else by its name.

/// Signatures at a file's beginning (the formats' own specifications).
const SIGNATURES: [(&[u8], &str); 19] = [
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"%PDF-", "application/pdf"),
    (b"\x7fELF", "application/x-executable"),
    (b"\x1f\x8b", "application/gzip"),
    (b"BZh", "application/x-bzip2"),
    (b"\xfd7zXZ\0", "application/x-xz"),
    (b"\x28\xb5\x2f\xfd", "application/zstd"),
    (b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (b"SQLite format 3\0", "application/vnd.sqlite3"),
    (b"\0asm", "application/wasm"),
    (b"OggS", "audio/ogg"),
    (b"fLaC", "audio/flac"),
    (b"ID3", "audio/mpeg"),
    (b"wOFF", "font/woff"),
    (b"wOF2", "font/woff2"),
    (b"PAR1", "application/vnd.apache.parquet"),
];

/// Types by the name's last extension, in lower case.
fn by_extension(extension: &str) -> Option<&'static str> {
    Some(match extension {
        "txt" | "log" | "ini" | "cfg" | "conf" => "text/plain",
        "md" | "markdown" => "text/markdown",
        "html" | "htm" => "text/html",
        "css" => "text/css",
        "csv" => "text/csv",
        "tsv" => "text/tab-separated-values",
        "xml" => "application/xml",
        "js" | "mjs" | "cjs" => "text/javascript",
        "ts" | "mts" | "cts" | "tsx" => "text/x-typescript",
        "jsx" => "text/jsx",
        "json" | "map" => "application/json",
        "jsonl" | "ndjson" => "application/x-ndjson",
        "ipynb" => "application/x-ipynb+json",
        "yaml" | "yml" => "application/yaml",
        "toml" => "application/toml",
        "py" | "pyi" => "text/x-python",
        "rs" => "text/x-rust",
        "go" => "text/x-go",
        "rb" => "text/x-ruby",
        "java" => "text/x-java",
        "c" | "h" => "text/x-c",
        "cc" | "cpp" | "cxx" | "hpp" | "hh" => "text/x-c++",
        "sh" | "bash" => "application/x-sh",
        "php" => "application/x-httpd-php",
        "sql" => "application/sql",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "avif" => "image/avif",
        "bmp" => "image/bmp",
        "ico" => "image/vnd.microsoft.icon",
        "pdf" => "application/pdf",
        "zip" => "application/zip",
        "tar" => "application/x-tar",
        "gz" | "tgz" => "application/gzip",
        "jar" => "application/java-archive",
        "docx" => "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "xlsx" => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "pptx" => "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        "mp3" => "audio/mpeg",
        "wav" => "audio/wav",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        "ttf" => "font/ttf",
        "otf" => "font/otf",
        "wasm" => "application/wasm",
        _ => return None,
    })
}

/// The media type of a file called `name` (its last component) whose content begins with `start`.
pub(crate) fn media_type(name: &[u8], start: &[u8], is_binary: bool) -> &'static str {
    if let Some((_, found)) = SIGNATURES.iter().find(|(signature, _)| start.starts_with(signature)) {
        return found;
    }
    if start.starts_with(b"RIFF") {
        match start.get(8..12) {
            Some(b"WEBP") => return "image/webp",
            Some(b"WAVE") => return "audio/wav",
            _ => {}
        }
    }
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    let known = name.rsplit_once('.').and_then(|(_, extension)| by_extension(extension));
    match known {
        // A name that promises text does not make bytes text; archives and office files are ZIP inside.
        Some(found) if is_binary && is_textual(found) => "application/octet-stream",
        Some(found) => found,
        None if start.starts_with(b"PK\x03\x04") => "application/zip",
        None if is_binary => "application/octet-stream",
        None if start.starts_with(b"#!") => "text/x-shellscript",
        None => "text/plain",
    }
}

fn is_textual(media_type: &str) -> bool {
    media_type.starts_with("text/") || media_type.ends_with("json") || media_type.ends_with("xml")
}

#[cfg(test)]
mod tests {
    use super::media_type;

    #[test]
    fn content_decides_before_the_name_and_the_name_before_nothing() {
        assert_eq!(media_type(b"a.txt", b"\x89PNG\r\n\x1a\n...", true), "image/png");
        assert_eq!(media_type(b"A.JSON", b"{}", false), "application/json");
        assert_eq!(media_type(b"a.json", b"\xff\xfe", true), "application/octet-stream");
        assert_eq!(media_type(b"x.docx", b"PK\x03\x04", true).split('.').next_back(), Some("document"));
        assert_eq!(media_type(b"x", b"PK\x03\x04", true), "application/zip");
        assert_eq!(media_type(b"run", b"#!/bin/sh\n", false), "text/x-shellscript");
        assert_eq!(media_type(b"noname", b"words", false), "text/plain");
        assert_eq!(media_type(b"clip", b"RIFF\0\0\0\0WAVE", true), "audio/wav");
    }
}
