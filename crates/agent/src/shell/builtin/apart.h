/*
 * System calls without a libc, and the one thing that every process of the agent's own programs does first: it sets
 * itself apart from the other processes of the sandbox, which have the same uid and would otherwise read its memory,
 * take its descriptors and stop it (attack A34).
 */
#if defined(__x86_64__)
enum { NR_read = 0, NR_close = 3, NR_getpid = 39, NR_kill = 62, NR_prctl = 157, NR_openat = 257 };
static inline long sys6(long n, long a, long b, long c, long d, long e, long f)
{
	long r;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	__asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return r;
}
#elif defined(__aarch64__)
enum { NR_openat = 56, NR_close = 57, NR_read = 63, NR_kill = 129, NR_prctl = 167, NR_getpid = 172 };
static inline long sys6(long n, long a, long b, long c, long d, long e, long f)
{
	register long x8 __asm__("x8") = n;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	register long x5 __asm__("x5") = f;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
	return x0;
}
#else
#error "the session loop knows x86_64 and aarch64"
#endif
#define sys(n, a, b, c) sys6((n), (long)(a), (long)(b), (long)(c), 0, 0, 0)

enum { AT_FDCWD = -100, O_CLOEXEC = 02000000 };

/* No longer dumpable: ptrace, pidfd_getfd and /proc/PID/{mem,fd,environ} of it are refused to all without CAP_SYS_PTRACE.
   Programs that it executes are dumpable again. Who traces it from before keeps it: it ends, and another takes its place. */
static void set_apart(void)
{
	static const char key[] = "TracerPid:\t";
	char text[1024];
	long fd, n = 0, at, i;
	sys6(NR_prctl, 4 /* PR_SET_DUMPABLE */, 0, 0, 0, 0, 0);
	fd = sys6(NR_openat, AT_FDCWD, (long)"/proc/self/status", O_CLOEXEC, 0, 0, 0);
	if (fd < 0) return;
	n = sys(NR_read, fd, text, sizeof text);
	sys(NR_close, fd, 0, 0);
	for (at = 0; at + (long)sizeof key < n; at++) {
		for (i = 0; i < (long)sizeof key - 1 && text[at + i] == key[i]; i++) {}
		if (i < (long)sizeof key - 1) continue;
		if (text[at + i] != '0') sys(NR_kill, sys(NR_getpid, 0, 0, 0), 9 /* SIGKILL */, 0);
		return;
	}
}
