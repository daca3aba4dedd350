"""Runs a program on a kernel that seems to have no Landlock: its three system calls answer ENOSYS."""
import ctypes
import os
import struct
import sys

LOAD, JUMP_IF_AT_LEAST, JUMP_IF_GREATER, RETURN = 0x20, 0x35, 0x25, 0x06
ALLOW, ENOSYS = 0x7FFF0000, 0x00050000 | 38
FIRST, LAST = 444, 446  # landlock_create_ruleset .. landlock_restrict_self, on every architecture

program = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in [
        (LOAD, 0, 0, 0),
        (JUMP_IF_AT_LEAST, 0, 2, FIRST),
        (JUMP_IF_GREATER, 1, 0, LAST),
        (RETURN, 0, 0, ENOSYS),
        (RETURN, 0, 0, ALLOW),
    ]
)
memory = ctypes.create_string_buffer(program)
filter_program = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(memory))
libc = ctypes.CDLL(None, use_errno=True)
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
# Root needs no no_new_privs for it; the sandboxes of the server inherit it.
if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.c_char_p(filter_program), 0, 0) != 0:
    raise OSError(ctypes.get_errno(), "install the filter")
os.execv(sys.argv[1], sys.argv[1:])
