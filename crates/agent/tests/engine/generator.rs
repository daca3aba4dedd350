//! Makes nasty scripts. Everything follows from a seed.

use sandcrab_agent::shell::Changes;

/// xorshift64*: small, and the same everywhere.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick_list<'a>(&mut self, from: &[&'a [&'a str]]) -> &'a [&'a str] {
        from[self.below(from.len())]
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

/// Names that get values of one kind only, so that a script's statements fit one another often enough to be interesting.
const SCALARS: &[&str] =
    &["a", "b", "C", "_d", "long_name_1", "X", "Path", "IFS", "PS4", "OPTIND", "REPLY", "BASH_REMATCH_2"];
const ARRAYS: &[&str] = &["arr", "A2", "list_"];
const MAPS: &[&str] = &["map", "M2"];
/// Not `eval`, which is what the oracle itself runs each command with.
const FUNCTIONS: &[&str] =
    &["f", "g", "h_1", "a-b", "x.y", "f:g", "builtin", "printf", "declare", "echo", "test", "true"];
/// Never called: what a random alias does may be done in the background, where no order is certain.
const ALIASES: &[&str] = &["a1", "..", "x+"];
const SHOPTS: &[&str] = &[
    "nullglob",
    "extglob",
    "dotglob",
    "nocasematch",
    "nocaseglob",
    "globstar",
    "lastpipe",
    "xpg_echo",
    "sourcepath",
    "inherit_errexit",
    "localvar_inherit",
    "localvar_unset",
    "expand_aliases",
    "checkhash",
    "extquote",
    "progcomp",
    "shift_verbose",
    "execfail",
    "cdable_vars",
    "checkwinsize",
    "assoc_expand_once",
    "globasciiranges",
];
const SETOPTS: &[&str] = &[
    "pipefail",
    "noglob",
    "noclobber",
    "allexport",
    "physical",
    "braceexpand",
    "hashall",
    "ignoreeof",
    "nolog",
    "notify",
    "interactive-comments",
    "functrace",
    "errtrace",
];
const SIGNALS: &[&str] = &["USR1", "USR2", "WINCH", "CONT", "URG", "34", "SIGIO"];
const DIRECTORIES: &[&str] =
    &["/", "/usr", "/usr/lib", "/bin", "..", ".", "-", "/usr/../usr/share", "/nonexistent", "//", "/sys/.."];

/// A value as bytes that a shell can hold, with a taste for what breaks quoting.
fn bytes(dice: &mut Dice) -> Vec<u8> {
    const PIECES: &[&[u8]] = &[
        b"a",
        b"b",
        b"Z",
        b"0",
        b"7",
        b" ",
        b"  ",
        b"\t",
        b"\n",
        b"'",
        b"\"",
        b"\\",
        b"$",
        b"`",
        b"$(echo x)",
        b"${a}",
        b"*",
        b"?",
        b"[",
        b"]",
        b"{a,b}",
        b"!",
        b"~",
        b"#",
        b";",
        b"|",
        b"<",
        b">",
        b"(",
        b")",
        b"=",
        b"%s",
        b"\\n",
        b"\\'",
        b"-n",
        b"-",
        b"EOF",
        b"\nEOF\n",
        "\u{fc}".as_bytes(),
        "\u{1f980}".as_bytes(),
        b"\xff",
        b"\xc3",
        b"\xfe\x80",
        b"\x01",
        b"\x1b",
        b"\x7f",
        b"\r",
        b"declare",
        b"a[0]",
        b"1+1",
    ];
    let mut all = Vec::new();
    for _ in 0..dice.below(6) {
        all.extend_from_slice(dice.pick(PIECES));
    }
    if dice.one_in(40) {
        all = all.repeat(400);
    }
    all
}

/// A value quoted for a script, in one of the ways that people quote.
fn quoted(dice: &mut Dice) -> Vec<u8> {
    let value = bytes(dice);
    match dice.below(4) {
        0 => {
            // Double quotes: what is inside is expanded, but the quotes stay balanced.
            let mut out = vec![b'"'];
            for b in value {
                if matches!(b, b'"' | b'\\' | b'`' | b'$') {
                    out.push(b'\\');
                }
                out.push(b);
            }
            out.push(b'"');
            out
        }
        1 => {
            let mut out = b"$'".to_vec();
            for b in value {
                match b {
                    b'\'' | b'\\' => out.extend_from_slice(&[b'\\', b]),
                    b'\n' => out.extend_from_slice(b"\\n"),
                    0x80.. => out.extend_from_slice(format!("\\x{b:02x}").as_bytes()),
                    _ => out.push(b),
                }
            }
            out.push(b'\'');
            out
        }
        _ => {
            let mut out = vec![b'\''];
            for b in value {
                if b == b'\'' { out.extend_from_slice(b"'\\''") } else { out.push(b) }
            }
            out.push(b'\'');
            out
        }
    }
}

/// Fills a template: `@s` a scalar's name, `@a` an array's, `@m` a map's, `@f` a function's, `@l` an alias's, `@q` a quoted
/// value, `@n` a small number, `@o` a shopt, `@O` a set option, `@S` a signal, `@D` a directory, `@B` a function's body.
fn fill(dice: &mut Dice, template: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = template.as_bytes();
    while let Some((&b, after)) = rest.split_first() {
        rest = after;
        if b != b'@' || rest.is_empty() {
            out.push(b);
            continue;
        }
        let kind = rest[0];
        rest = &rest[1..];
        match kind {
            b's' => out.extend_from_slice(dice.pick(SCALARS).as_bytes()),
            b'a' => out.extend_from_slice(dice.pick(ARRAYS).as_bytes()),
            b'm' => out.extend_from_slice(dice.pick(MAPS).as_bytes()),
            b'f' => out.extend_from_slice(dice.pick(FUNCTIONS).as_bytes()),
            b'l' => out.extend_from_slice(dice.pick(ALIASES).as_bytes()),
            b'o' => out.extend_from_slice(dice.pick(SHOPTS).as_bytes()),
            b'O' => out.extend_from_slice(dice.pick(SETOPTS).as_bytes()),
            b'S' => out.extend_from_slice(dice.pick(SIGNALS).as_bytes()),
            b'D' => out.extend_from_slice(dice.pick(DIRECTORIES).as_bytes()),
            b'n' => out.extend_from_slice(dice.below(9).to_string().as_bytes()),
            b'q' => out.extend(quoted(dice)),
            b'B' => {
                let body = dice.pick(BODIES);
                out.extend(fill(dice, body));
            }
            other => out.extend_from_slice(&[b'@', other]),
        }
    }
    out
}

const BODIES: &[&str] = &[
    ":",
    "local v=@q; command echo \"$v\" \"$#\"",
    "command cat <<EOF\nin $1 `command echo sub`\nEOF\n",
    "command cat <<'E O F' | command tr a-z A-Z\nraw $1 \\ `x`\nE O F\n",
    "command cat <<-X\n\ttabbed\n\tX\n",
    "case $1 in (a|b*) command echo ab ;; @(x|y)+([0-9])) command echo ext ;& *) command echo other ;; esac",
    "for ((i=0; i<@n; i++)); do command echo $i; done",
    "for i in \"$@\"; do [[ $i =~ ^(a+)(.*)$ ]] && command echo \"${BASH_REMATCH[2]}\"; done",
    "if [[ -n $1 && ! -e /nonexistent ]]; then return @n; elif (( @n > 3 )); then return 2; else command echo \"$@\"; fi",
    "while read -r line; do command echo \"[$line]\"; done <<< \"$1\"",
    "( set -- @q; command echo \"$1\" ) 2>&1 | command cat",
    "inner() { command echo inner \"$1\"; }; inner @q",
    "{ command echo out; command echo err >&2; } 2>/dev/null",
    "! command true || command echo neg",
    "until (( ++k_ > 2 )); do :; done; unset k_",
    "select x in a b; do break; done <<< 1 2>/dev/null; command echo $x",
    "local -A m=([k]=@q); local -n r=m; command echo \"${r[k]}\"",
    "command echo $'quote\\'s' \"dq $(command echo \"nest `command echo deep`\")\" ${1:-def} ${1@Q}",
    "coproc_() { command echo c; }; { time -p :; } 2>/dev/null; command echo after",
    "@s=@q",
    "local @s=@q; @s+=more; return 3",
];

const STATEMENTS: &[&str] = &[
    "@s=@q",
    "@s=@q",
    "@s+=@q",
    "export @s=@q",
    "export -n @s",
    "export @s",
    "unset @s",
    "declare -i n1=@n+@n",
    "declare -u up=@q",
    "declare -l lo=@q",
    "declare -c ca=@q",
    "declare -t tr=@q",
    "declare -ix ix=@n",
    "up=@q",
    "lo+=@q",
    "n1=n1+@n",
    "n1=nonsense[0]",
    "readonly r@n=@q",
    "r@n=@q",
    "declare -rx rx=@q",
    "declare unset_@n",
    "declare -x unset_x@n",
    "declare -a unset_a",
    "declare -A unset_m",
    "@a=(@q @q)",
    "@a+=(@q)",
    "@a[@n]=@q",
    "@a[1000000]=@q",
    "unset '@a[@n]'",
    "unset @a",
    "declare -ai ia=(1 2+3 @n)",
    "export @a",
    "declare -A @m=([k]=@q [@n]=@q)",
    "@m[@n]=@q",
    "@m[\"$a\"]=@q",
    "unset '@m[k]'",
    "declare -gA @m",
    "declare -n ref=@s",
    "ref=@q",
    "declare -n ref2=ref",
    "unset -n ref",
    "declare -n aref='arr[1]'",
    "aref=@q",
    "@f() { @B\n}",
    "function @f { @B\n}",
    "@f() ( @B\n)",
    "@f() { @B\n} 2>/dev/null",
    "@f @q @q",
    "f @q",
    "g",
    "h_1 a1 bb x7",
    "export -f @f 2>/dev/null",
    "unset -f @f",
    "declare -ft @f",
    "readonly -f h_1",
    "alias @l=@q",
    "alias ll='command echo aliased '",
    "alias say='command echo said'",
    "unalias @l",
    "ll @q",
    "say",
    "unalias -a",
    "alias",
    "shopt -s @o",
    "shopt -u @o",
    "set -o @O",
    "set +o @O",
    "shopt -p @o",
    "trap @q @S",
    "trap 'command echo trapped' @S",
    "trap '' @S",
    "trap - @S",
    "trap 'n1+=1' USR1; kill -USR1 \"$$\"",
    "trap -p",
    "umask 0@n@n",
    "umask 027",
    "umask u=rwx,g=rx,o=",
    "umask",
    "cd @D",
    "cd -P @D",
    "cd -L @D",
    "pwd",
    "cd",
    "OLDPWD=@q",
    "set -- @q @q",
    "set -- a b c",
    "shift",
    "shift 99",
    "command echo \"$#\" \"$1\"",
    "command echo \"$@\"",
    "command printf '<%s>' \"$a\" \"${arr[@]}\" \"${map[@]}\"",
    "command echo $a $b $C",
    "command echo \"${X^^}\" \"${a//a/b}\" ${#b} \"${a@Q}\" \"${a@A}\"",
    "command echo \"${!a*}\"",
    "command echo ${arr[-1]}",
    "command echo \"${!arr[@]}\" ${#map[@]}",
    "command echo *",
    "command echo /usr/l*b {1..3}{a,b} ~",
    "command cat <<< @q",
    "command cat <<EOF\n$a ${b:-x} `command echo y` \\$z\nEOF",
    "command cat <<'EOF'\n$a\nEOF",
    "read -r a b <<< @q",
    "mapfile -t arr <<< @q",
    "command printf -v X %q @q",
    "read -ra arr < /dev/null",
    "for i in @q @q; do command echo \"$i\"; done",
    "while false; do :; done",
    "case @q in a*) command echo a;; *) command echo else;; esac",
    "if @s=@q; then command echo set; fi",
    "[[ @q == *a* ]] && command echo has",
    "[[ aXb =~ (.)X(.) ]] && command echo ${BASH_REMATCH[1]}",
    "(( n1 = @n * @n, n1 > 9 ))",
    "let 'n1 += @n'",
    "command echo $((n1 << @n)) $(( 1 / 0 ))",
    "command echo $((a))",
    "x=$(command echo @q; exit @n)",
    "(cd /; @s=@q; exit @n)",
    "command echo sub | { read -r a; command echo \"$a\"; }",
    "command true | command false | (exit @n)",
    "command echo ${PIPESTATUS[@]}",
    "command ls /nonexistent",
    "nosuchcommand_@n",
    "command echo ${bad!}",
    "return @n",
    "command echo \"unclosed",
    "fi",
    "a=(",
    "command echo $(command echo \"x)",
    "}",
    "enable -n @f 2>/dev/null",
    "enable @f 2>/dev/null",
    "type -t @f",
    "hash -r",
    "command -v @f",
    "while getopts ab:c opt -a -b val -z; do command echo $opt $OPTARG; done 2>/dev/null",
    "OPTIND=1",
    "local v=1",
    "eval 'command echo ev'; eval 'h_1 x'; eval \"ev_=@n\"",
    "IFS=$' \\t\\n'",
    "IFS=:",
    "unset IFS",
    "command echo err >&2",
    "command printf '%s' @q >&2",
    "exit_code_() { return @n; }; exit_code_",
    "{ time -p true; } 2>/dev/null",
    "command sh -c 'command echo \"$a$X\"'",
    "BASH_COMPAT=5.0",
    "unset BASH_COMPAT",
    "set -o posix",
    "set +o posix",
    "LC_ALL=C",
    "unset LC_ALL",
    "SECONDS=5",
    "RANDOM=3",
    "unset RANDOM",
    "pushd @D",
    "popd",
    "dirs",
    "pushd -n @q >/dev/null",
    "dirs -c",
    "complete -W 'a b' cmd_",
    "PROMPT_COMMAND=@q",
    "HISTFILE=/nonexistent",
];

/// One command: a few statements in a row.
///
/// `set +o posix` brings back options from before `set -o posix`, which only the shell that saw both remembers: a session
/// whose shell ends in between does not know them, so `restarts` leaves it out.
pub(crate) fn command(dice: &mut Dice, restarts: bool) -> Vec<u8> {
    let mut all = Vec::new();
    for i in 0..1 + dice.below(4) {
        if i > 0 {
            // A heredoc's last line must stand alone, or the next statement becomes part of it.
            let heredoc = all.ends_with(b"EOF");
            all.extend_from_slice(if !heredoc && dice.one_in(4) { b"; " } else { b"\n" });
        }
        let mut template = dice.pick(STATEMENTS);
        while restarts && template == "set +o posix" {
            template = dice.pick(STATEMENTS);
        }
        all.extend(fill(dice, template));
    }
    all
}

/// Variables to give to a session: of every kind that the statements make, but for readonly ones, which a plain shell could
/// not give another value.
pub(crate) fn given(dice: &mut Dice) -> Changes {
    const OF_A_KIND: &[&str] =
        &["n1", "up", "lo", "ca", "tr", "ix", "ia", "ref", "ref2", "aref", "unset_1", "unset_x2"];
    let mut given = Changes::new();
    for _ in 0..1 + dice.below(3) {
        let names = dice.pick_list(&[SCALARS, ARRAYS, MAPS, OF_A_KIND]);
        let name = dice.pick(names).to_owned();
        // An exported OPTIND that is no number is an error of every `sh`.
        if name == "OPTIND" {
            continue;
        }
        let value = (!dice.one_in(5)).then(|| String::from_utf8_lossy(&bytes(dice)).into_owned());
        given.insert(name, value);
    }
    given
}

/// A command that makes state, prints nothing and cannot fail.
pub(crate) fn quiet(dice: &mut Dice) -> Vec<u8> {
    const QUIET: &[&str] = &[
        "q_s=@q",
        "export q_x=@q",
        "q_arr=(@q @q)",
        "q_arr[@n]=@q",
        "q_f() { command cat <<EOF\nin $1 `command echo sub`\nEOF\n}",
        "q_f() { local v=@q & w=; [[ $i =~ ^(a+)(.*)$ ]] || command echo \"${BASH_REMATCH[2]}\"; }",
        "alias @l=@q",
        "umask 0@n7 2>/dev/null",
        "set -o pipefail",
        "shopt -s dotglob",
    ];
    let template = dice.pick(QUIET);
    fill(dice, template)
}
