//! Tests that run with each kind of driver.

/// Makes a module of each attack's name with a test for each kind of driver.
macro_rules! in_each_mode {
    ($($attack:ident),+ $(,)?) => {
        $(
            mod $attack {
                #[test]
                fn root() {
                    crate::common::as_root(super::$attack);
                }

                #[test]
                fn rootless() {
                    crate::common::as_an_ordinary_user(concat!(stringify!($attack), "::rootless"), super::$attack);
                }
            }
        )+
    };
}
