//! The heads of requests to what runs in a sandbox, and of its answers.

use super::refusal;
use crate::auth::Auth;
use http::header::{self, Entry, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Uri, Version, request};
use sandcrab_api::{ApiError, ErrorCode};
use std::net::IpAddr;

/// Headers of one hop (RFC 9110, section 7.6.1), beside those that `Connection` names.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];
/// What callers cannot be believed, with their hyphens or underscores: many servers read either.
const OURS_TO_SAY: [&str; 3] = ["x-forwarded-", "x-sandcrab-", "x-real-ip"];
/// Cookies of the console's, whatever their prefix.
const OUR_COOKIES: &str = "sandcrab";

/// How the caller reached the preview, as what runs in the sandbox is told.
#[derive(Debug)]
pub(super) struct Outside {
    /// The caller's address, or the addresses of it and of proxies on the way.
    pub(super) peer: ForwardedFor,
    /// `Host` as the caller sent it.
    pub(super) host: HeaderValue,
    /// Whether the caller's connection is encrypted.
    pub(super) is_https: bool,
}

#[derive(Debug)]
pub(super) enum ForwardedFor {
    Address(IpAddr),
    Said(HeaderValue),
}

impl Outside {
    fn scheme(&self) -> &'static str {
        if self.is_https { "https" } else { "http" }
    }

    /// The origin of the page that a browser shows from here.
    pub(super) fn origin(&self) -> Option<String> {
        let host = self.host.to_str().ok()?.to_ascii_lowercase();
        let usual = if self.is_https { ":443" } else { ":80" };
        Some(format!("{}://{}", self.scheme(), host.strip_suffix(usual).unwrap_or(&host)))
    }

    /// The host's name, without its port, in lower case.
    fn name(&self) -> Option<String> {
        let host = self.host.to_str().ok()?;
        Some(host.split(':').next()?.trim_end_matches('.').to_ascii_lowercase())
    }

    fn port(&self) -> HeaderValue {
        let said = self.host.to_str().ok().and_then(|host| host.rsplit_once(':')?.1.parse::<u16>().ok());
        HeaderValue::from(said.unwrap_or(if self.is_https { 443 } else { 80 }))
    }
}

/// Refuses requests that two readers could read differently (attack C07).
pub(super) fn check_form(head: &request::Parts) -> Result<(), ApiError> {
    let invalid = |field: &str, rule: &str| Err(refusal_of(ApiError::invalid(field, rule)));
    let mut hosts = head.headers.get_all(header::HOST).iter();
    if hosts.next().is_none() || hosts.next().is_some() {
        return invalid("Host", "a request has exactly one Host header");
    }
    if head.version < Version::HTTP_2 && (head.uri.authority().is_some() || head.uri.scheme().is_some()) {
        return invalid("path", "must begin with a slash: this server is no forward proxy");
    }
    if head.method == Method::TRACE {
        return Err(refusal(ErrorCode::MethodNotAllowed, "TRACE is not passed on to previews"));
    }
    Ok(())
}

fn refusal_of(error: ApiError) -> ApiError {
    error.during("preview")
}

/// The path to ask for.
pub(super) fn target(uri: &Uri, method: &Method) -> Uri {
    let path = match uri.path_and_query() {
        Some(path) => path.clone(),
        None if method == Method::OPTIONS => PathAndQuery::from_static("*"),
        None => PathAndQuery::from_static("/"),
    };
    Uri::from(path)
}

/// The headers of a request as what runs in the sandbox gets them.
pub(super) fn request_headers(mut headers: HeaderMap, outside: &Outside, auth: &Auth) -> HeaderMap {
    let wants_trailers = tokens(&headers, &header::TE).any(|token| token.eq_ignore_ascii_case("trailers"));
    remove_hop_by_hop(&mut headers);
    let said: Vec<HeaderName> = headers.keys().filter(|name| is_ours_to_say(name)).cloned().collect();
    for name in said {
        headers.remove(name);
    }
    headers.remove(header::FORWARDED);
    // The body is asked for when it is needed, which is when the caller hears `100 Continue`.
    headers.remove(header::EXPECT);
    keep(&mut headers, &header::AUTHORIZATION, |value| !auth.holds_key(value));
    let cookies = cookies(&headers);
    headers.remove(header::COOKIE);
    if let Some(cookies) = cookies {
        headers.insert(header::COOKIE, cookies);
    }
    if wants_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
    }
    const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
    const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
    const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
    const PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
    let peer = match &outside.peer {
        ForwardedFor::Address(address) => HeaderValue::try_from(address.to_canonical().to_string()).ok(),
        ForwardedFor::Said(value) => Some(value.clone()),
    };
    if let Some(peer) = peer {
        headers.insert(FOR, peer);
    }
    headers.insert(header::HOST, outside.host.clone());
    headers.insert(HOST, outside.host.clone());
    headers.insert(PROTO, HeaderValue::from_static(outside.scheme()));
    headers.insert(PORT, outside.port());
    headers
}

/// The headers of an answer as the caller gets them.
pub(super) fn answer_headers(mut headers: HeaderMap, outside: &Outside) -> HeaderMap {
    // A body in chunks has no length; one that is said beside them would cut it, or hide another answer in it (attack C07).
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    }
    remove_hop_by_hop(&mut headers);
    let name = outside.name().unwrap_or_default();
    keep(&mut headers, &header::SET_COOKIE, |cookie| is_cookie_of(cookie.as_bytes(), &name));
    // It would clear the cookies of every preview below the same domain.
    keep(&mut headers, &HeaderName::from_static("clear-site-data"), |value| {
        let value = value.as_bytes().to_ascii_lowercase();
        !value.contains(&b'*') && !value.windows(7).any(|part| part == b"cookies")
    });
    headers
}

/// Keeps those values of a header that pass.
fn keep(headers: &mut HeaderMap, name: &HeaderName, passes: impl Fn(&HeaderValue) -> bool) {
    if !headers.contains_key(name) {
        return;
    }
    let kept: Vec<_> = headers.get_all(name).iter().filter(|value| passes(value)).cloned().collect();
    if let Entry::Occupied(entry) = headers.entry(name) {
        entry.remove_entry_mult();
    }
    for value in kept {
        headers.append(name, value);
    }
}

/// The words of a header that is a list.
pub(super) fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<String> =
            tokens(headers, &header::CONNECTION).map(str::to_owned).filter(|name| !name.is_empty()).collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

fn is_ours_to_say(name: &HeaderName) -> bool {
    let name = name.as_str();
    if !name.starts_with('x') {
        return false;
    }
    let name = name.replace('_', "-");
    OURS_TO_SAY.iter().any(|said| name.starts_with(said))
}

/// The cookies of all `Cookie` headers, of which HTTP/2 allows several, as one; without those of the console.
fn cookies(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut values = headers.get_all(header::COOKIE).iter();
    let (first, rest) = (values.next()?, values.next());
    let is_ours = |value: &HeaderValue| {
        let bytes = value.as_bytes().to_ascii_lowercase();
        bytes.windows(OUR_COOKIES.len()).any(|part| part == OUR_COOKIES.as_bytes())
    };
    if rest.is_none() && !is_ours(first) {
        return Some(first.clone());
    }
    let all = headers.get_all(header::COOKIE).iter().flat_map(|value| value.as_bytes().split(|b| *b == b';'));
    let theirs = all.map(<[u8]>::trim_ascii).filter(|cookie| {
        let name = cookie.split(|byte| *byte == b'=').next().unwrap_or_default().to_ascii_lowercase();
        let name = name.strip_prefix(b"__host-").or(name.strip_prefix(b"__secure-")).unwrap_or(&name);
        !cookie.is_empty() && !name.starts_with(OUR_COOKIES.as_bytes())
    });
    let joined = theirs.collect::<Vec<_>>().join(&b"; "[..]);
    (!joined.is_empty()).then(|| HeaderValue::from_bytes(&joined).ok())?
}

/// Whether a cookie stays within the preview's own host (attack C04): one with a wider `Domain` would reach its
/// siblings, or the console.
fn is_cookie_of(cookie: &[u8], host: &str) -> bool {
    cookie.split(|byte| *byte == b';').skip(1).all(|attribute| {
        let mut parts = attribute.splitn(2, |byte| *byte == b'=');
        let name = parts.next().unwrap_or_default().trim_ascii();
        let value = parts.next().unwrap_or_default().trim_ascii();
        if !name.eq_ignore_ascii_case(b"domain") {
            return true;
        }
        let domain = value.strip_prefix(b".").unwrap_or(value).to_ascii_lowercase();
        let Some(above) = domain.strip_suffix(host.as_bytes()) else { return domain.is_empty() };
        above.is_empty() || above.ends_with(b".")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outside() -> Outside {
        Outside {
            peer: ForwardedFor::Address("192.0.2.7".parse().unwrap()),
            host: HeaderValue::from_static("3000-a-t.localhost:8787"),
            is_https: false,
        }
    }

    fn map(headers: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
        }
        map
    }

    fn pairs(headers: &HeaderMap) -> Vec<(&str, &str)> {
        let mut pairs: Vec<_> =
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        pairs.sort_unstable();
        pairs
    }

    #[test]
    fn c07_what_belongs_to_one_hop_or_is_ours_to_say_does_not_pass() {
        let sent = map(&[
            ("host", "3000-a-t.localhost:8787"),
            ("connection", "keep-alive, X-Secret"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers, deflate"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABkAAQAAP__"),
            ("proxy-authorization", "Basic eA=="),
            ("x-forwarded-for", "10.0.0.1"),
            ("x_forwarded_host", "evil"),
            ("x-forwarded-proto", "https"),
            ("x-real-ip", "10.0.0.1"),
            ("x-sandcrab-key", "k"),
            ("forwarded", "for=10.0.0.1"),
            ("expect", "100-continue"),
            ("accept", "*/*"),
            ("x-own", "2"),
        ]);
        let got = request_headers(sent, &outside(), &Auth::none());
        assert_eq!(
            pairs(&got),
            [
                ("accept", "*/*"),
                ("connection", "te"),
                ("host", "3000-a-t.localhost:8787"),
                ("te", "trailers"),
                ("x-forwarded-for", "192.0.2.7"),
                ("x-forwarded-host", "3000-a-t.localhost:8787"),
                ("x-forwarded-port", "8787"),
                ("x-forwarded-proto", "http"),
                ("x-own", "2"),
            ]
        );
    }

    #[test]
    fn c04_our_key_and_cookies_stay_here_and_theirs_pass() {
        let auth = Auth::of_one_key("a-key-of-ours");
        let get = |headers: &[(&str, &str)], name: &str| {
            let got = request_headers(map(headers), &outside(), &auth);
            got.get(name).map(|value| value.to_str().unwrap().to_owned())
        };
        for ours in [
            "Bearer a-key-of-ours",
            "bearer  a-key-of-ours",
            "Bearer a-key-of-ours, Basic x",
            "Basic x, Bearer a-key-of-ours",
            "Bearer a-key-of-ours,Basic x",
            "Basic YS1rZXktb2Ytb3Vyczo=",
            "Basic dXNlcjphLWtleS1vZi1vdXJz",
            "Digest response=\"a-key-of-ours\"",
            "Token token=a-key-of-ours",
        ] {
            assert_eq!(get(&[("authorization", ours)], "authorization"), None, "{ours}");
            let second = [("authorization", "Basic YTpi"), ("authorization", ours)];
            let got = request_headers(map(&second), &outside(), &auth);
            assert_eq!(pairs(&got).iter().filter(|(name, _)| *name == "authorization").count(), 1, "{ours}");
        }
        for theirs in ["Bearer another", "Basic YTpi", "Bearer a-key-of-our"] {
            assert_eq!(get(&[("authorization", theirs)], "authorization").as_deref(), Some(theirs));
        }
        assert_eq!(get(&[("cookie", "a=b; c=d")], "cookie").as_deref(), Some("a=b; c=d"));
        assert_eq!(get(&[("cookie", "a=b"), ("cookie", "c=d")], "cookie").as_deref(), Some("a=b; c=d"));
        let mixed = "a=sandcrab; sandcrab_session=x; __Host-Sandcrab=y;b=2; __secure-sandcrabs=z";
        assert_eq!(get(&[("cookie", mixed)], "cookie").as_deref(), Some("a=sandcrab; b=2"));
        assert_eq!(get(&[("cookie", "sandcrab=x")], "cookie"), None);
    }

    #[test]
    fn c04_a_cookie_for_more_than_the_own_host_is_dropped() {
        let cookies = [
            ("a=1; Path=/; HttpOnly", true),
            ("a=1; Domain=3000-a-t.localhost", true),
            ("a=1; domain=.3000-A-T.localhost", true),
            ("a=1; domain=x.3000-a-t.localhost", true),
            ("a=1; Domain=", true),
            ("Domain=localhost", true),
            ("a=1; Domain=localhost", false),
            ("a=1;domain = .localhost ;Secure", false),
            ("a=1; Domain=3000-a-t.localhost; Domain=localhost", false),
            ("a=1; Domain=0-a-t.localhost", false),
            ("a=1; Domain=93000-a-t.localhost", false),
            ("a=1; Domain=example.com", false),
        ];
        for (cookie, passes) in cookies {
            let got = answer_headers(map(&[("set-cookie", cookie), ("set-cookie", "k=v")]), &outside());
            let kept: Vec<_> = got.get_all("set-cookie").iter().map(|v| v.to_str().unwrap()).collect();
            let expected: Vec<_> = if passes { vec![cookie, "k=v"] } else { vec!["k=v"] };
            assert_eq!(kept, expected);
        }
        let clear = |value: &str| {
            answer_headers(map(&[("clear-site-data", value)]), &outside()).contains_key("clear-site-data")
        };
        assert!(clear("\"cache\", \"storage\"") && !clear("\"cache\", \"Cookies\"") && !clear("\"*\""));
    }

    #[test]
    fn an_origin_has_no_usual_port() {
        let origin = |host: &str, is_https| {
            let host = HeaderValue::try_from(host).unwrap();
            Outside { host, is_https, ..outside() }.origin().unwrap()
        };
        assert_eq!(origin("3000-A-t.localhost:8787", false), "http://3000-a-t.localhost:8787");
        assert_eq!(origin("3000-a-t.x.example:443", true), "https://3000-a-t.x.example");
        assert_eq!(origin("3000-a-t.x.example:80", true), "https://3000-a-t.x.example:80");
    }
}
