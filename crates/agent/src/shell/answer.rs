//! How a shell answers a request, by its word or by what it leaves behind.

use super::protocol::Nonce;
use super::protocol::page::Page;
use crate::spawn::Exit;

/// How a shell answered one request.
pub(super) enum Answer {
    Completed {
        status: i32,
    },
    /// It completed the command, said so on the page and left.
    CompletedAndLeft {
        status: i32,
    },
    Exited(Exit),
    /// It began the command, and nobody can say how that ended.
    Lost(Exit),
    /// It ended before it began the command.
    NotBegun,
}

impl Answer {
    /// What a shell did with a request before it ended, by what it left on the shared page; `given_up` if the agent
    /// killed it for not beginning.
    pub(super) fn at_the_end(page: Option<&Page>, nonce: Nonce, exit: Exit, given_up: bool) -> Self {
        // Without the page the command may have been run, and must not be run again.
        let Some(page) = page else { return Self::Lost(exit) };
        match page.completed {
            Some((completed, status)) if completed == nonce => Self::CompletedAndLeft { status },
            _ if page.begun != nonce => Self::NotBegun,
            _ if given_up => Self::Lost(exit),
            _ => Self::Exited(exit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s03_a_status_that_nobody_knows_is_said_to_be_lost() {
        const NONCE: Nonce = [1, 2];
        const KILLED: Exit = Exit::Signal(9);
        let page = |begun, completed| Page { begun, completed, state: None };
        let answer =
            |page: Option<Page>, given_up| Answer::at_the_end(page.as_ref(), NONCE, KILLED, given_up);
        let begun = || Some(page(NONCE, None));
        assert!(matches!(answer(begun(), true), Answer::Lost(KILLED)), "killed by the agent after it began");
        assert!(matches!(answer(begun(), false), Answer::Exited(KILLED)), "killed by anyone else: 128 + 9");
        assert!(matches!(answer(None, false), Answer::Lost(KILLED)), "it must not be run again");
        let other = || Some(page([3, 4], Some(([3, 4], 0))));
        assert!(matches!(answer(other(), true), Answer::NotBegun), "it can be run again");
        let completed = Some(page(NONCE, Some((NONCE, 7))));
        assert!(matches!(answer(completed, true), Answer::CompletedAndLeft { status: 7 }));
    }
}
