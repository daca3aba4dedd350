//! Wire types, ids, the error table and limits of Sandcrab's API.
