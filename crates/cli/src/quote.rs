//! Words as a shell reads them back.

/// One word as it is; several as one command whose words are literal.
pub(crate) fn command(words: &[String]) -> String {
    match words {
        [text] => text.clone(),
        words => words.iter().map(|word| literal(word)).collect::<Vec<_>>().join(" "),
    }
}

/// A word that a POSIX shell reads back as it is. Words of harmless characters stay bare, so that an alias still is one.
pub(crate) fn literal(word: &str) -> String {
    let harmless = |c: char| c.is_ascii_alphanumeric() || "_-+./:@%,".contains(c);
    if !word.is_empty() && word.chars().all(harmless) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b09_several_words_are_literal_to_a_real_shell() {
        let words: Vec<String> = [
            "a b", "$HOME", "it's", "", "*", "`id`", "x;y", "\\", "\"", "\n", "~", "a=b", "-n", "#", "!!",
            "ünï",
        ]
        .map(str::to_owned)
        .to_vec();
        let text = command(&[vec!["printf".to_owned(), "<%s>".to_owned()], words.clone()].concat());
        #[expect(clippy::disallowed_methods, reason = "the oracle is a real shell")]
        let shell = std::process::Command::new("bash").args(["-c", &text]).output().unwrap();
        let expected: String = words.iter().map(|word| format!("<{word}>")).collect();
        assert_eq!(String::from_utf8(shell.stdout).unwrap(), expected);
    }

    #[test]
    fn one_word_is_shell_text() {
        assert_eq!(command(&["echo $HOME | wc".to_owned()]), "echo $HOME | wc");
        assert_eq!(command(&["ls".to_owned(), "-la".to_owned()]), "ls -la");
    }
}
