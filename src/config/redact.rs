//! Keeping secrets out of what is printed.

use std::borrow::Cow;

/// What stands for a secret.
const MASK: &str = "***";

/// Parts of a name that mark its value as a secret, compared in lower case.
const SECRET_PARTS: [&str; 9] =
    ["password", "passwd", "passphrase", "secret", "token", "credential", "api_key", "apikey", "private_key"];

/// Whether a key (a name or a dotted path, of which the last part counts) names a secret.
pub fn is_secret_name(path: &str) -> bool {
    let name = path.rsplit('.').next().unwrap_or(path).to_ascii_lowercase().replace('-', "_");
    // A file with a secret has a path, which is none.
    !name.ends_with("_file") && SECRET_PARTS.iter().any(|part| name.contains(part))
}

/// The value of a key as it may be printed: a secret is masked whole, and so is the userinfo of a URL.
pub fn redact<'a>(path: &str, value: &'a str) -> Cow<'a, str> {
    if is_secret_name(path) && !value.is_empty() {
        return Cow::Borrowed(MASK);
    }
    // A password may hold an unescaped `/` or `@`: everything up to the last `@` is masked.
    let (Some(scheme), Some(at)) = (value.find("://"), value.rfind('@')) else {
        return Cow::Borrowed(value);
    };
    if at < scheme + 3 {
        return Cow::Borrowed(value);
    }
    Cow::Owned(format!("{}{MASK}{}", &value[..scheme + 3], &value[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("rabbitmq.password", "hunter2", "***")]
    #[case("environment.set.DB_PASSWORD", "hunter2", "***")]
    #[case("client_secret", "s", "***")]
    #[case("a.Auth-Token", "t", "***")]
    #[case("environment.set.OPENAI_API_KEY", "k", "***")]
    #[case("rabbitmq.password", "", "")]
    #[case("rabbitmq.password_file", "/run/secrets/pw", "/run/secrets/pw")]
    #[case("environment.set.FILE_PASSWORD", "hunter2", "***")]
    #[case("rabbitmq.url", "amqp://me:pw@host:5672/vh", "amqp://***@host:5672/vh")]
    #[case("rabbitmq.url", "amqp://me@host", "amqp://***@host")]
    #[case("rabbitmq.url", "amqp://me:p/w@x@host", "amqp://***@host")]
    #[case("rabbitmq.url", "amqp://host:5672", "amqp://host:5672")]
    #[case("environment.set.DSN", "pg://me:pw@host", "pg://***@host")]
    #[case("a.b", "me@host://", "me@host://")]
    #[case("token.log", "info", "info")]
    fn secrets_are_masked(#[case] path: &str, #[case] value: &str, #[case] printed: &str) {
        assert_eq!(redact(path, value), printed);
    }
}
