/*
 * The session loop: a loadable builtin that turns a bash into a session's shell.
 *
 * The agent starts `bash -c 'enable -f /proc/self/fd/N sandcrab; sandcrab CTL SHARE'`. The builtin then
 * never returns: it receives a command with fresh stdin, stdout and stderr over a private socket, evaluates
 * it exactly as `eval` would, sends the status, and hands over a checkpoint of the shell's state when that
 * changed. Because the loop is C inside the shell, no function, alias, option, trap or redirection of the
 * user's can come between the agent and the status.
 *
 * No libc is linked: system calls are made directly and the few functions used by name (fflush, _setjmp,
 * strerror) have the same ABI in glibc and musl, so one object serves both. Bash's own headers are not
 * needed either; the declarations below are the parts of them that have not changed from 4.3 to 5.3, and
 * `layout_is_known` checks the ones that matter before the loop starts.
 *
 * Wire format: see protocol.rs, its only other reader and writer.
 *
 * Long because the object is one translation unit without libc: everything it needs stands here.
 */
typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long u64;
typedef unsigned long usize;
typedef long isize;
#define NULL ((void *)0)
#define HIDDEN __attribute__((visibility("hidden")))
#define WEAK __attribute__((weak))

/* ---------------------------------------------------------------- system calls */
#include "apart.h"
#if defined(__x86_64__)
enum { NR_fstat = 5, NR_lseek = 8, NR_mmap = 9, NR_munmap = 11, NR_rt_sigprocmask = 14, NR_pread64 = 17,
       NR_pwrite64 = 18, NR_sendmsg = 46, NR_recvmsg = 47, NR_getsockopt = 55, NR_fcntl = 72, NR_ftruncate = 77,
       NR_getcwd = 79, NR_chdir = 80, NR_fchdir = 81, NR_umask = 95, NR_rt_sigtimedwait = 128, NR_exit_group = 231,
       NR_waitid = 247, NR_ppoll = 271, NR_dup3 = 292, NR_prlimit64 = 302, NR_memfd_create = 319, NR_openat2 = 437 };
#else
enum { NR_getcwd = 17, NR_dup3 = 24, NR_fcntl = 25, NR_ftruncate = 46, NR_chdir = 49, NR_fchdir = 50, NR_lseek = 62, NR_ppoll = 73,
       NR_pread64 = 67, NR_pwrite64 = 68, NR_fstat = 80, NR_exit_group = 94, NR_waitid = 95, NR_rt_sigprocmask = 135,
       NR_rt_sigtimedwait = 137, NR_umask = 166, NR_getsockopt = 209, NR_sendmsg = 211, NR_recvmsg = 212,
       NR_munmap = 215, NR_mmap = 222, NR_prlimit64 = 261, NR_memfd_create = 279, NR_openat2 = 437 };
#endif

enum { EINTR = 4, ENOSYS = 38, ELOOP = 40, F_DUPFD_CLOEXEC = 1030, O_PATH = 010000000,
       O_DIRECTORY =
#if defined(__aarch64__)
	       040000
#else
	       0200000
#endif
};

struct iovec { void *base; usize len; };
struct msghdr { void *name; u32 namelen; u32 pad; struct iovec *iov; usize iovlen; void *control; usize controllen; int flags; };
struct cmsg { usize len; int level; int type; int fds[4]; };
enum { SOL_SOCKET = 1, SCM_RIGHTS = 1, SO_COOKIE = 57, MSG_CTRUNC = 8, MSG_NOSIGNAL = 0x4000 };

/* ---------------------------------------------------------------- bash, as it exports itself */
typedef struct { char *word; int flags; } WORD_DESC;
typedef struct word_list { struct word_list *next; WORD_DESC *word; } WORD_LIST;
typedef int builtin_fn(WORD_LIST *);
struct builtin { char *name; builtin_fn *function; int flags; char *const *long_doc; const char *short_doc; char *handle; };
typedef struct bucket { struct bucket *next; char *key; void *data; u32 khash; int times_found; } BUCKET;
typedef struct { BUCKET **array; int nbuckets; int nentries; } HASH_TABLE;
typedef struct variable {
	char *name, *value, *exportstr;
	void *dynamic_value, *assign_func;
	int attributes, context;
} SHELL_VAR;
typedef struct var_context { char *name; int scope, flags; struct var_context *up, *down; HASH_TABLE *table; } VAR_CONTEXT;
typedef struct { int type, flags, line; } COMMAND_HEAD;
typedef struct { char *name, *value; char flags; } ALIAS;
enum { ATT_EXPORTED = 1, ATT_READONLY = 2, ATT_ARRAY = 4, ATT_INTEGER = 0x10, ATT_ASSOC = 0x40, ATT_TRACE = 0x80,
       ATT_UPPER = 0x100, ATT_LOWER = 0x200, ATT_CAP = 0x400, ATT_NAMEREF = 0x800, ATT_INVISIBLE = 0x1000,
       ATT_NOASSIGN = 0x4000 };
/* What `declare` sets besides the kind of the variable; carried as bits, so that no value is evaluated again. */
#define ATT_CARRIED (ATT_EXPORTED | ATT_READONLY | ATT_INTEGER | ATT_TRACE | ATT_UPPER | ATT_LOWER | ATT_CAP)
/* A bit of COMMAND.flags that bash does not use: set on a function's body once a checkpoint holds it. A new
   definition is a new copy of freshly parsed text and lacks it, wherever malloc puts it. */
#define BODY_IS_SAVED 0x40000000
enum { SEVAL_NOHIST = 4, SEVAL_RESETLINE = 0x10 };
enum { JUMP_FORCE_EOF = 1, JUMP_DISCARD = 2, JUMP_ERREXIT = 4 };
enum { BUILTIN_ENABLED = 1 };
enum { TRAPS = 68 /* NSIG + DEBUG, ERR, RETURN */ };

extern int evalstring(char *, const char *, int);
extern struct builtin *builtin_address_internal(char *, int);
extern void *xmalloc(usize), *xrealloc(void *, usize);
extern void xfree(void *);
extern void exit_shell(int) __attribute__((noreturn));
extern WORD_DESC *make_word(const char *);
extern WORD_LIST *make_word_list(WORD_DESC *, WORD_LIST *);
extern void dispose_words(WORD_LIST *);
extern void stupidly_hack_special_variables(char *);
extern SHELL_VAR *bind_variable(const char *, char *, int);
extern SHELL_VAR *find_variable(const char *);
extern char *assoc_to_assign(HASH_TABLE *, int);
extern char *named_function_string(const char *, void *, int);
extern void set_bashopts(void);
extern void add_alias(char *, char *), set_signal(int, char *), ignore_signal(int);
extern int makunbound(const char *, VAR_CONTEXT *);
extern void dispose_variable(SHELL_VAR *);
extern BUCKET *hash_remove(const char *, HASH_TABLE *, int), *hash_insert(char *, HASH_TABLE *, int), *hash_search(const char *, HASH_TABLE *, int);
extern HASH_TABLE *hash_create(int);
extern void hash_dispose(HASH_TABLE *);
extern char *set_working_directory(char *);
extern char *array_to_assign(void *, int);
extern WORD_LIST *get_directory_stack(int);
extern int no_symbolic_links;
extern char *sh_canonpath(char *, int);
extern void builtin_error(const char *, ...);
extern void termsig_handler(int);
extern int last_command_exit_value, indirection_level, variable_context, array_needs_making, expand_aliases;
extern int executing_builtin, executing_command_builtin, terminating_signal, exit_immediately_on_error, restricted, num_shell_builtins;
extern VAR_CONTEXT *shell_variables, *global_variables;
extern HASH_TABLE *shell_functions, *temporary_env, *aliases;
extern char *trap_list[], *dollar_vars[], *the_current_working_directory, *this_command_name;
extern WORD_LIST *rest_of_args;
extern struct builtin *shell_builtins;
extern builtin_fn *this_shell_builtin;
extern char top_level[];
/* What a command may leave behind in bash. WEAK: one that a version lacks is not there to be cleared. */
extern int interrupt_state WEAK, wait_signal_received WEAK, wait_intr_flag WEAK, loop_level WEAK, breaking WEAK, continuing WEAK,
	return_catch_flag WEAK, executing_list WEAK, comsub_ignore_return WEAK, funcnest WEAK, evalnest WEAK, sourcenest WEAK;
extern int read_but_dont_execute WEAK, progcomp_size(void) WEAK;
extern void reset_parser(void) WEAK;
/* libc, by names whose ABI glibc and musl share. */
extern int fflush(void *);
extern int _setjmp(void *) __attribute__((returns_twice));
extern char *strerror(int);

/* ---------------------------------------------------------------- what a freestanding C needs */
HIDDEN void *memcpy(void *d, const void *s, usize n)
{
	for (usize i = 0; i < n; i++) ((u8 *)d)[i] = ((const u8 *)s)[i];
	return d;
}
HIDDEN void *memset(void *d, int c, usize n)
{
	for (usize i = 0; i < n; i++) ((volatile u8 *)d)[i] = (u8)c;
	return d;
}
static usize length(const char *s)
{
	usize n = 0;
	while (s[n]) n++;
	return n;
}
static int equal(const char *a, const char *b)
{
	while (*a && *a == *b) a++, b++;
	return *a == *b;
}

/* ---------------------------------------------------------------- what is said over the socket */
#define REQUEST_MAGIC 0x51524353u /* "SCRQ" */
#define REPLY_MAGIC 0x50524353u   /* "SCRP" */
#define STATE_MAGIC 0x31544353u   /* "SCT1" */
enum { KIND_RUN = 1, KIND_RESTORE = 2 };
enum { REPLY_HELLO = 1, REPLY_STATUS = 2, REPLY_SETTLED = 3, REPLY_STATE = 4, REPLY_RESTORED = 5, REPLY_REFUSED = 6,
	REPLY_UNKEPT = 7 };
enum { ASSIGN_SET = 1, ASSIGN_ONLY_IF = 2, ASSIGN_EXPECT_SET = 4 };
enum { SETTLED_UNCHANGED = 0, SETTLED_LATER = 1 };
enum { MAX_DATAGRAM = 32768 };
struct request { u32 magic, kind; u64 nonce[2]; u64 payload, state; u32 session_vars, command_vars, cwd, text, last_status, home; };
struct assignment { u32 op, name, value, expect; };
struct reply { u32 magic, kind; u64 nonce[2]; int status; u32 settled; u64 length; };
/* One part of a state: a header, then name and text without terminators. */
struct part { u32 kind, attributes, name, text_high; u64 text; };
struct state_head { u32 magic, parts; u64 length; };
enum { PART_SCALAR = 1, PART_ARRAY = 2, PART_ASSOC = 3, PART_NAMEREF = 4, PART_FUNCTION = 5, PART_ALIAS = 6, PART_TRAP = 7,
       PART_SETOPTS = 8, PART_SHOPTS = 9, PART_UMASK = 10, PART_CWD = 11, PART_POSITIONAL = 12, PART_DISABLED = 13,
       PART_UNSET_SPECIAL = 14, PART_RESTRICTED = 15, PART_DIRECTORY = 16, PART_LOST = 17 };

/* The page shared with the agent: the only way to tell it something once the user closed the socket. */
enum { SHARE_SIZE = 1 << 18 };
struct share { u64 begun[2]; u64 completed[2]; u32 status; u32 state_ready; u64 state_length; u8 state[SHARE_SIZE - 48]; };

static int control = -1;
static u64 control_cookie;
static struct share *share;
static long shell_pid;
static u64 nonce[2];
static u64 saved_print;     /* fingerprint of the last state handed over */
static u64 print_cost;      /* bytes and nodes the last fingerprint looked at */
static int running;         /* a command is being evaluated */
static int died_of_errexit;
static u8 datagram[MAX_DATAGRAM];

static void leave(int code)
{
	sys(NR_exit_group, code, 0, 0);
	__builtin_unreachable();
}

static int control_is_ours(void)
{
	u64 cookie = 0;
	u32 len = sizeof cookie;
	return sys6(NR_getsockopt, control, SOL_SOCKET, SO_COOKIE, (long)&cookie, (long)&len, 0) == 0 && cookie == control_cookie;
}

/* Sends one datagram: a reply, what follows it, and maybe one descriptor. False: the socket is not ours any more. */
static int reply(u32 kind, int status, u32 settled, const void *extra, usize n, int fd)
{
	struct reply r = { REPLY_MAGIC, kind, { nonce[0], nonce[1] }, status, settled, n };
	struct iovec iov[2] = { { &r, sizeof r }, { (void *)extra, n } };
	struct cmsg c = { sizeof(usize) + 8 + sizeof(int), SOL_SOCKET, SCM_RIGHTS, { fd } };
	struct msghdr m = { NULL, 0, 0, iov, n ? 2 : 1, fd >= 0 ? &c : NULL, fd >= 0 ? sizeof(usize) + 16 : 0, 0 };
	long sent;
	if (!control_is_ours()) return 0;
	do sent = sys(NR_sendmsg, control, &m, MSG_NOSIGNAL);
	while (sent == -EINTR);
	return sent >= 0;
}

/* ---------------------------------------------------------------- a growing buffer */
static struct { u8 *at; usize len, room; u32 parts; } out;
static void put(const void *bytes, usize n)
{
	if (out.len + n > out.room) {
		out.room = (out.len + n) * 2 + 4096;
		out.at = out.at ? xrealloc(out.at, out.room) : xmalloc(out.room);
	}
	memcpy(out.at + out.len, bytes, n);
	out.len += n;
}
static void put_part(u32 kind, u32 attributes, const char *name, const char *text, usize n)
{
	struct part p = { kind, attributes, (u32)length(name), 0, n };
	put(&p, sizeof p);
	put(name, p.name);
	put(text, n);
	out.parts++;
}

/* ---------------------------------------------------------------- what belongs to the state */
/* Bash's own variables, which a fresh shell makes for itself. Those with a value of their own making
   (RANDOM, SECONDS, LINENO, ...) are recognised by their functions. */
static int is_shells_own(const SHELL_VAR *v)
{
	static const char *const names[] = { "BASH", "BASHOPTS", "BASH_ARGC", "BASH_ARGV", "BASH_EXECUTION_STRING", "BASH_LINENO",
		"BASH_SOURCE", "BASH_VERSINFO", "BASH_VERSION", "BASH_XTRACEFD", "EUID", "FUNCNAME", "PIPESTATUS", "PPID", "SHELLOPTS", "UID", "_", NULL };
	if (v->dynamic_value || v->assign_func || (v->attributes & ATT_NOASSIGN)) return 1;
	switch (v->name[0]) {
	case 'B': case 'E': case 'F': case 'P': case 'S': case 'U': case '_':
		for (const char *const *n = names; *n; n++)
			if (equal(*n, v->name)) return 1;
	}
	return 0;
}

static inline u64 mix(u64 h, u64 x)
{
	h = (h ^ x) * 0x9E3779B97F4A7C15ul;
	return h ^ (h >> 29);
}
/* The limits of this process, as `ulimit` changes them. */
static u64 first_limits;
static u64 limits_print(void)
{
	u64 h = 0, pair[2];
	for (int i = 0; i < 16; i++)
		if (sys6(NR_prlimit64, 0, i, 0, (long)pair, 0, 0) == 0) h = mix(mix(h, pair[0]), pair[1]);
	return h;
}
/* Reads a string a word at a time: an aligned block never crosses into an unmapped page. Long strings go through four
   lanes, or a multiplication per word would bound the speed instead of the memory. */
static u64 hash_text(const char *s, u64 h)
{
	typedef u64 __attribute__((may_alias)) word;
	const u64 ones = 0x0101010101010101ul, highs = 0x8080808080808080ul, k = 0x9E3779B97F4A7C15ul;
	const char *start = s;
	u64 a = h, b = h + 1, c = h + 2, d = h + 3;
	if (!s) return mix(h, 1);
	for (; (u64)s & 31; s++) {
		if (!*s) goto end;
		h = mix(h, (u8)*s);
	}
	for (;; s += 32) {
		const word *w = (const word *)s;
		u64 w0 = w[0], w1 = w[1], w2 = w[2], w3 = w[3];
		if ((((w0 - ones) & ~w0) | ((w1 - ones) & ~w1) | ((w2 - ones) & ~w2) | ((w3 - ones) & ~w3)) & highs) break;
		/* The rotation carries what the multiplication moved up back down. */
		a = ((a ^ w0) * k) << 29 | ((a ^ w0) * k) >> 35;
		b = ((b ^ w1) * k) << 29 | ((b ^ w1) * k) >> 35;
		c = ((c ^ w2) * k) << 29 | ((c ^ w2) * k) >> 35;
		d = ((d ^ w3) * k) << 29 | ((d ^ w3) * k) >> 35;
	}
	h = mix(mix(mix(mix(h, a), b), c), d);
	while (*s) h = mix(h, (u8)*s++);
end:
	print_cost += (u64)(s - start);
	return mix(h, (u64)(s - start));
}
static u64 hash_value(const SHELL_VAR *v, u64 h)
{
	char *text;
	if (!v->value || !(v->attributes & (ATT_ARRAY | ATT_ASSOC))) return hash_text(v->value, h);
	text = v->attributes & ATT_ARRAY ? array_to_assign(v->value, 0) : assoc_to_assign((HASH_TABLE *)v->value, 0);
	h = hash_text(text, h);
	if (text) xfree(text);
	return h;
}
static SHELL_VAR *global(const char *name)
{
	BUCKET *b = hash_search(name, global_variables->table, 0);
	return b ? b->data : NULL;
}
static const char *value_of(const char *name)
{
	SHELL_VAR *v = global(name);
	return v && v->value ? v->value : "";
}
static u32 current_umask(void)
{
	u32 mask = (u32)sys(NR_umask, 077, 0, 0);
	sys(NR_umask, mask, 0, 0);
	return mask;
}

#define EACH_BUCKET(b, table) \
	for (int _i = 0; (table) && _i < (table)->nbuckets; _i++) \
		for (BUCKET *b = (table)->array[_i], *_next; b && (_next = b->next, 1); b = _next)

/* The working directory, then what is stacked below it. Under `set -P` bash would find out the working directory anew. */
static WORD_LIST *directories(void)
{
	int physical = no_symbolic_links;
	WORD_LIST *all;
	no_symbolic_links = 0;
	all = get_directory_stack(0);
	no_symbolic_links = physical;
	return all;
}

/* A number that changes when the state does: contents of variables, not addresses, since malloc gives the same
   address again. Sums, so that the order of a hash table does not matter. */
static u64 fingerprint(void)
{
	u64 h = 0, fresh = 0;
	print_cost = 0;
	EACH_BUCKET(b, global_variables->table) {
		SHELL_VAR *v = b->data;
		print_cost += 32;
		if (!is_shells_own(v)) h += mix(hash_value(v, b->khash), (u32)v->attributes & (ATT_CARRIED | ATT_ARRAY | ATT_ASSOC | ATT_NAMEREF | ATT_INVISIBLE));
	}
	EACH_BUCKET(b, shell_functions) {
		SHELL_VAR *v = b->data;
		COMMAND_HEAD *body = (COMMAND_HEAD *)v->value;
		print_cost += 64;
		h += mix(mix(b->khash, 3), (u32)v->attributes & ATT_CARRIED);
		if (body && !(body->flags & BODY_IS_SAVED)) fresh = 1;
	}
	EACH_BUCKET(b, aliases) h += mix(hash_text(((ALIAS *)b->data)->value, mix(b->khash, 5)), 5);
	for (int i = 0; i < TRAPS; i++)
		if (trap_list[i]) h += (u64)trap_list[i] == 1 ? mix(i, 7) : hash_text(trap_list[i], mix(i, 9));
	h = hash_text(value_of("SHELLOPTS"), h);
	h = hash_text(value_of("BASHOPTS"), h);
	h = hash_text(the_current_working_directory, h);
	h = mix(h, current_umask());
	for (int i = 1; i < 10; i++) h = hash_text(dollar_vars[i], h);
	for (WORD_LIST *w = rest_of_args; w; w = w->next) h = hash_text(w->word->word, h);
	for (int i = 0; i < num_shell_builtins; i++) h = mix(h, shell_builtins[i].flags & BUILTIN_ENABLED);
	{
		WORD_LIST *stack = directories();
		for (WORD_LIST *w = stack ? stack->next : NULL; w; w = w->next) h = hash_text(w->word->word, h);
		dispose_words(stack);
	}
	h = mix(mix(h, restricted), limits_print());
	if (progcomp_size) h = mix(h, progcomp_size());
	/* A new body has no print of its own; adding the old one makes the sum differ from itself. */
	return fresh ? ~saved_print : h;
}

/* ---------------------------------------------------------------- writing the state */
static char *const_text(u32 n, char room[16])
{
	int i = 15;
	room[i] = 0;
	do room[--i] = '0' + n % 10;
	while (n /= 10);
	return room + i;
}

static const char *specials[64]; /* bash's own unsettable variables, as a fresh shell has them */
static int special_count;

static void write_state(void)
{
	struct state_head head = { STATE_MAGIC, 0, 0 };
	char room[16];
	char *text;
	out.len = 0;
	out.parts = 0;
	put(&head, sizeof head);
	set_bashopts(); /* what `set -o posix` changes is not in BASHOPTS before */
	EACH_BUCKET(b, global_variables->table) {
		SHELL_VAR *v = b->data;
		u32 bits = (u32)v->attributes & (ATT_CARRIED | ATT_INVISIBLE);
		if (is_shells_own(v)) continue;
		if (v->attributes & (ATT_ARRAY | ATT_ASSOC)) {
			int indexed = v->attributes & ATT_ARRAY;
			text = !v->value || (v->attributes & ATT_INVISIBLE) ? NULL : indexed ? array_to_assign(v->value, 0) : assoc_to_assign((HASH_TABLE *)v->value, 0);
			if (text) put_part(indexed ? PART_ARRAY : PART_ASSOC, bits, v->name, text, length(text));
			else put_part(indexed ? PART_ARRAY : PART_ASSOC, bits, v->name, "()", bits & ATT_INVISIBLE ? 0 : 2);
			if (text) xfree(text);
		} else {
			if (!v->value) bits |= ATT_INVISIBLE;
			put_part(v->attributes & ATT_NAMEREF ? PART_NAMEREF : PART_SCALAR, bits, v->name, v->value ? v->value : "", v->value ? length(v->value) : 0);
		}
	}
	for (int i = 0; i < special_count; i++)
		if (!global(specials[i])) put_part(PART_UNSET_SPECIAL, 0, specials[i], "", 0);
	EACH_BUCKET(b, shell_functions) {
		SHELL_VAR *v = b->data;
		if (!v->value) continue;
		text = named_function_string(v->name, v->value, 3 /* FUNC_MULTILINE | FUNC_EXTERNAL, as `declare -f` */);
		put_part(PART_FUNCTION, (u32)v->attributes & ATT_CARRIED, v->name, text, length(text));
	}
	EACH_BUCKET(b, aliases) {
		ALIAS *a = b->data;
		put_part(PART_ALIAS, 0, b->key, a->value, length(a->value));
	}
	for (int i = 0; i < TRAPS; i++)
		if ((u64)trap_list[i] == 1) put_part(PART_TRAP, 1, const_text(i, room), "", 0);
		else if (trap_list[i]) put_part(PART_TRAP, 0, const_text(i, room), trap_list[i], length(trap_list[i]));
	put_part(PART_SETOPTS, 0, "", value_of("SHELLOPTS"), length(value_of("SHELLOPTS")));
	put_part(PART_SHOPTS, 0, "", value_of("BASHOPTS"), length(value_of("BASHOPTS")));
	put_part(PART_UMASK, current_umask(), "", "", 0);
	if (the_current_working_directory) put_part(PART_CWD, 0, "", the_current_working_directory, length(the_current_working_directory));
	for (int i = 1; i < 10 && dollar_vars[i]; i++) put_part(PART_POSITIONAL, 0, "", dollar_vars[i], length(dollar_vars[i]));
	for (WORD_LIST *w = rest_of_args; w; w = w->next) put_part(PART_POSITIONAL, 0, "", w->word->word, length(w->word->word));
	for (int i = 0; i < num_shell_builtins; i++)
		if (shell_builtins[i].function && !(shell_builtins[i].flags & BUILTIN_ENABLED)) put_part(PART_DISABLED, 0, shell_builtins[i].name, "", 0);
	{
		WORD_LIST *stack = directories(), *done = NULL;
		/* From the bottom, in the order of pushing, and without the top, which is the working directory. */
		while (stack && stack->next != done) {
			WORD_LIST *w = stack->next;
			while (w->next != done) w = w->next;
			put_part(PART_DIRECTORY, 0, "", w->word->word, length(w->word->word));
			done = w;
		}
		dispose_words(stack);
	}
	if (restricted) put_part(PART_RESTRICTED, 0, "", "", 0);
	/* What the next shell does not have, to be named there. */
	if (died_of_errexit) put_part(PART_LOST, 0, "set -e", "", 0);
	if (limits_print() != first_limits) put_part(PART_LOST, 0, "ulimit", "", 0);
	if (progcomp_size && progcomp_size() > 0) put_part(PART_LOST, 0, "complete", "", 0);
	head.parts = out.parts;
	head.length = out.len;
	memcpy(out.at, &head, sizeof head);
}

/* A body that a checkpoint holds is marked, so that the next fingerprint need not print it. */
static void mark_bodies(void)
{
	EACH_BUCKET(b, shell_functions) {
		SHELL_VAR *v = b->data;
		if (v->value) ((COMMAND_HEAD *)v->value)->flags |= BODY_IS_SAVED;
	}
}

/* Keeps signals from coming until they are let through; SIGKILL and SIGSTOP always come. */
static u64 hold_signals(void)
{
	u64 all = ~0ul, old = 0;
	sys6(NR_rt_sigprocmask, 0 /* SIG_BLOCK */, (long)&all, (long)&old, 8, 0, 0);
	return old;
}

static void let_signals(u64 old)
{
	sys6(NR_rt_sigprocmask, 2 /* SIG_SETMASK */, (long)&old, 0, 8, 0, 0);
}

/* Writes `out` to a memory file, which then belongs to the agent. The file size limit is the user's to set and does
   not end the shell here: SIGXFSZ is blocked and taken back, and a short write is a failure. */
static int state_file(void)
{
	u64 block = 1ul << 24 /* SIGXFSZ */, old = 0;
	usize done = 0;
	int fd = (int)sys(NR_memfd_create, "sandcrab-state", 3 /* MFD_CLOEXEC | MFD_ALLOW_SEALING */, 0);
	if (fd < 0) return -1;
	sys6(NR_rt_sigprocmask, 0 /* SIG_BLOCK */, (long)&block, (long)&old, 8, 0, 0);
	while (done < out.len) {
		long n = sys6(NR_pwrite64, fd, (long)(out.at + done), out.len - done, done, 0, 0);
		if (n == -EINTR) continue;
		if (n <= 0) break;
		done += n;
	}
	{
		u64 at_once[2] = { 0, 0 };
		if (done < out.len) sys6(NR_rt_sigtimedwait, (long)&block, 0, (long)at_once, 8, 0, 0);
	}
	sys6(NR_rt_sigprocmask, 2 /* SIG_SETMASK */, (long)&old, 0, 8, 0, 0);
	if (done == out.len) return fd;
	sys(NR_close, fd, 0, 0);
	return -1;
}

/* Hands `out` to the agent, inline when it fits a datagram. */
static int hand_over(void)
{
	int fd, ok;
	if (out.len + sizeof(struct reply) <= MAX_DATAGRAM) return reply(REPLY_STATE, 0, 0, out.at, out.len, -1);
	fd = state_file();
	if (fd < 0) return 0;
	ok = reply(REPLY_STATE, 0, 0, NULL, 0, fd);
	sys(NR_close, fd, 0, 0);
	return ok;
}

static int share_state(void)
{
	if (out.len > sizeof share->state) return 0;
	memcpy(share->state, out.at, out.len);
	share->state_length = out.len;
	__atomic_store_n(&share->state_ready, 1, __ATOMIC_RELEASE);
	return 1;
}

/* ---------------------------------------------------------------- variables and directory of one command only */
/* What stands aside while a command has its own: the hash table's node itself, so that value, kind, attributes and
   absence all come back exactly. */
static struct aside { char *name; BUCKET *old; } *aside;
static int aside_count, aside_room;
static char *aside_cwd;
static int aside_cwd_fd = -1;

static void changed(char *name)
{
	array_needs_making = 1;
	stupidly_hack_special_variables(name);
}
static void step_aside(const char *name)
{
	char *copy = xmalloc(length(name) + 1);
	memcpy(copy, name, length(name) + 1);
	if (aside_count == aside_room) {
		aside_room = aside_room * 2 + 16;
		aside = aside ? xrealloc(aside, aside_room * sizeof *aside) : xmalloc(aside_room * sizeof *aside);
	}
	aside[aside_count].name = copy;
	aside[aside_count++].old = hash_remove(name, global_variables->table, 0);
}
static void give(const char *name, char *value)
{
	SHELL_VAR *v = bind_variable(name, value, 0);
	if (v) v->attributes |= ATT_EXPORTED;
}
static void forget(BUCKET *b)
{
	if (!b) return;
	dispose_variable(b->data);
	xfree(b->key);
	xfree(b);
}
static void step_back(void)
{
	while (aside_count > 0) {
		char *name = aside[--aside_count].name;
		BUCKET *old = aside[aside_count].old, *b;
		forget(hash_remove(name, global_variables->table, 0));
		if (old) {
			b = hash_insert(old->key, global_variables->table, 1 /* HASH_NOSRCH */);
			b->data = old->data;
			xfree(old);
		}
		changed(name);
		xfree(name);
	}
	if (!aside_cwd) return;
	if (aside_cwd_fd < 0 || sys(NR_fchdir, aside_cwd_fd, 0, 0) < 0) sys(NR_chdir, aside_cwd, 0, 0);
	if (aside_cwd_fd >= 0) sys(NR_close, aside_cwd_fd, 0, 0);
	set_working_directory(aside_cwd);
	xfree(aside_cwd);
	aside_cwd = NULL;
	aside_cwd_fd = -1;
}

static char *join(const char *dir, const char *path)
{
	usize a = path[0] == '/' ? 0 : length(dir), b = length(path);
	char *all = xmalloc(a + b + 2);
	memcpy(all, dir, a);
	if (a) all[a++] = '/';
	memcpy(all + a, path, b + 1);
	return all;
}

/* Goes to a directory that a caller named: through no link of /proc to an open file or a directory of a process. What the
   user's own `cd` may do is the user's. */
static const char *const through_proc = "it leads through a link of /proc to an open file or a directory of a process";
static const char *enter(const char *path)
{
	struct { u64 flags, mode, resolve; } how = { O_PATH | O_DIRECTORY | O_CLOEXEC, 0, 2 /* RESOLVE_NO_MAGICLINKS */ };
	long fd = sys6(NR_openat2, AT_FDCWD, (long)path, (long)&how, sizeof how, 0, 0), done;
	if (fd == -ELOOP) {
		how.resolve = 0;
		fd = sys6(NR_openat2, AT_FDCWD, (long)path, (long)&how, sizeof how, 0, 0);
		if (fd >= 0) sys(NR_close, fd, 0, 0);
		return fd == -ELOOP ? strerror(ELOOP) : through_proc;
	}
	/* `ulimit -n`, or a filter of the user's own that knows no openat2. */
	if (fd < 0) done = fd == -ENOSYS || fd == -24 /* EMFILE */ ? sys(NR_chdir, path, 0, 0) : fd;
	else done = sys(NR_fchdir, fd, 0, 0), sys(NR_close, fd, 0, 0);
	return done < 0 ? strerror((int)-done) : NULL;
}

/* Goes to the command's own directory. The `cd` builtin is not asked: CDPATH, a restricted shell or a readonly PWD are
   the session's, and this directory is the caller's. */
static int go_to(const char *path)
{
	char *here = the_current_working_directory ? the_current_working_directory : (char *)"/";
	char *full = join(here, path), *canonical;
	const char *old_pwd = value_of("PWD");
	int fd = (int)sys6(NR_openat, AT_FDCWD, (long)".", O_PATH | O_DIRECTORY | O_CLOEXEC, 0, 0, 0);
	const char *failed = enter(full);
	if (failed) {
		char *was = this_command_name;
		this_command_name = (char *)"cd";
		builtin_error("%s: %s", path, failed);
		this_command_name = was;
		xfree(full);
		if (fd >= 0) sys(NR_close, fd, 0, 0);
		return 0;
	}
	if (fd >= 0) {
		aside_cwd_fd = (int)sys(NR_fcntl, fd, F_DUPFD_CLOEXEC, control + 4);
		sys(NR_close, fd, 0, 0);
	}
	canonical = sh_canonpath(full, 0);
	if (!canonical) canonical = full;
	aside_cwd = join("", here);
	{
		char *old = join("", old_pwd);
		step_aside("PWD");
		step_aside("OLDPWD");
		set_working_directory(canonical);
		give("PWD", canonical);
		give("OLDPWD", old);
		xfree(old);
	}
	if (canonical != full) xfree(canonical);
	xfree(full);
	return 1;
}

/* PWD says where the shell is, as the kernel calls it. */
static void stand_here(void)
{
	char here[4096];
	if (sys(NR_getcwd, here, sizeof here, 0) > 0 && here[0] == '/') {
		set_working_directory(here);
		bind_variable("PWD", here, 0);
	}
}

/* A shell that waited for its session begins now: where a shell begins that is started there, with SECONDS at zero. */
static void begin_session(const char *home)
{
	static int has_begun;
	SHELL_VAR *seconds = has_begun ? NULL : find_variable("SECONDS");
	has_begun = 1;
	if (seconds && seconds->assign_func) bind_variable("SECONDS", (char *)"0", 0);
	if (!*home) return;
	if (enter(home)) sys(NR_chdir, "/", 0, 0);
	stand_here();
}

/* A change of the session's or the sandbox's variables, made before a command. What is set becomes an ordinary exported
   variable, whatever it was: as an integer, a reference or one in lower case it would hold something else than was given,
   or run it. */
static void assign(const struct assignment *a, const char *name, char *value, const char *expect)
{
	SHELL_VAR *v = global(name);
	int is_plain = v && v->value && !(v->attributes & (ATT_ARRAY | ATT_ASSOC | ATT_NAMEREF | ATT_INVISIBLE));
	if (a->op & ASSIGN_ONLY_IF) {
		int untouched = a->op & ASSIGN_EXPECT_SET ? is_plain && equal(v->value, expect) : !v;
		if (!untouched) return;
	}
	if (v) makunbound(name, shell_variables);
	if (a->op & ASSIGN_SET) {
		give(name, value);
		changed((char *)name);
	}
}

/* ---------------------------------------------------------------- evaluating */
/* As bash's own top level does between two commands (throw_to_top_level in sig.c), which this loop never comes back to.
   An interrupt that a child's SIGINT left pending under `set -m` would end each later command before it begins; a text
   that ended inside `$(` leaves the parser's line buffer one byte short, and the next text would be read past it. */
static void call_builtin(const char *name, const char *a, const char *b);
static void forget_last_command(void)
{
	static int *const left[] = { &interrupt_state, &wait_signal_received, &wait_intr_flag, &loop_level, &breaking, &continuing,
		&return_catch_flag, &executing_list, &comsub_ignore_return, &funcnest, &evalnest, &sourcenest };
	for (usize i = 0; i < sizeof left / sizeof *left; i++)
		if (left[i]) *left[i] = 0;
	if (reset_parser) reset_parser();
	/* `set -n`: a shell that people work in ignores it; in one that did not, nothing would ever run again, with status 0. */
	if (&read_but_dont_execute && read_but_dont_execute) {
		read_but_dont_execute = 0;
		call_builtin("set", "+n", NULL);
	}
}

/* Evaluates a text as `eval` does. Jumps to the top level (exit, set -e, a fatal expansion) end here; the code of the
   jump is returned, 0 for none, and the status is in last_command_exit_value. */
static int evaluate(char *text)
{
	volatile int jump = _setjmp(top_level);
	if (jump) return jump;
	forget_last_command();
	this_shell_builtin = builtin_address_internal((char *)"eval", 1)->function;
	this_command_name = (char *)"eval";
	executing_builtin = 1; /* a jump out of the last command may have unwound these */
	executing_command_builtin = 0;
	indirection_level = 0;
	last_command_exit_value = evalstring(text, "eval", SEVAL_NOHIST | SEVAL_RESETLINE);
	return 0;
}

static void call_builtin(const char *name, const char *a, const char *b)
{
	struct builtin *found = builtin_address_internal((char *)name, 1);
	WORD_LIST *words = b ? make_word_list(make_word(b), NULL) : NULL;
	words = make_word_list(make_word(a), words);
	if (found) found->function(words);
	dispose_words(words);
}

/* Whether a colon-separated list holds a name. */
static int holds(const char *list, const char *name, usize n)
{
	while (*list) {
		usize i = 0;
		while (i < n && list[i] == name[i]) i++;
		if (i == n && (list[n] == 0 || list[n] == ':')) return 1;
		while (*list && *list != ':') list++;
		if (*list) list++;
	}
	return 0;
}
/* Makes the shell's options equal to a saved list: turns on what is missing, off what is too much. */
static void set_options(const char *variable, const char *wanted, const char *builtin, int through_o)
{
	char *now = join("", value_of(variable));
	for (int off = 0; off < 2; off++) {
		const char *from = off ? now : wanted, *in = off ? wanted : now;
		while (*from) {
			usize n = 0;
			char name[64];
			while (from[n] && from[n] != ':') n++;
			if (n < sizeof name && !holds(in, from, n)) {
				memcpy(name, from, n);
				name[n] = 0;
				if (through_o) call_builtin(builtin, off ? "+o" : "-o", name);
				else call_builtin(builtin, off ? "-u" : "-s", name);
			}
			from += n;
			if (*from) from++;
		}
	}
	xfree(now);
}

/* Removes what a fresh shell made or imported, so that what the state lacks is absent. */
static void purge(void)
{
	for (;;) {
		char *name = NULL;
		EACH_BUCKET(b, global_variables->table) {
			SHELL_VAR *v = b->data;
			if (!name && !is_shells_own(v)) name = join("", v->name);
		}
		if (!name) break;
		global(name)->attributes &= ~ATT_READONLY;
		makunbound(name, shell_variables);
		xfree(name);
	}
}

static int restored_aliases = 1;
static HASH_TABLE *restored_functions;
static WORD_LIST *restored_positional;

static int restore_part(const struct part *p, char *name, char *text)
{
	static const char *const declare[] = { "declare -a ", "declare -A " };
	SHELL_VAR *v;
	u32 n = 0;
	switch (p->kind) {
	case PART_SCALAR:
	case PART_NAMEREF:
		v = bind_variable(name, text, 0);
		if (!v) return 0;
		stupidly_hack_special_variables(name);
		v = global(name);
		if (!v) return 0;
		if (p->attributes & ATT_INVISIBLE) {
			xfree(v->value);
			v->value = NULL;
		}
		v->attributes |= (p->attributes & (ATT_CARRIED | ATT_INVISIBLE)) | (p->kind == PART_NAMEREF ? ATT_NAMEREF : 0);
		array_needs_making = 1;
		return 1;
	case PART_ARRAY:
	case PART_ASSOC: {
		const char *head = declare[p->kind == PART_ASSOC];
		usize a = length(head), b = length(name), c = length(text);
		char *line = xmalloc(a + b + c + 2);
		memcpy(line, head, a);
		memcpy(line + a, name, b);
		line[a + b] = 0;
		if (!(p->attributes & ATT_INVISIBLE)) {
			line[a + b] = '=';
			memcpy(line + a + b + 1, text, c + 1);
		}
		if (evaluate(line) || last_command_exit_value || !(v = global(name))) return 0;
		v->attributes |= p->attributes & ATT_CARRIED;
		array_needs_making = 1;
		return 1;
	}
	case PART_FUNCTION: {
		BUCKET *b;
		if (evaluate(join("", text)) || last_command_exit_value) return 0;
		b = hash_search(name, shell_functions, 0);
		if (!b) return 0;
		v = b->data;
		v->attributes |= p->attributes & ATT_CARRIED;
		array_needs_making = 1;
		return 1;
	}
	case PART_ALIAS: add_alias(name, text); return 1;
	case PART_TRAP:
		while (*name) n = n * 10 + (u32)(*name++ - '0');
		if (n >= TRAPS) return 0;
		if (p->attributes) ignore_signal((int)n);
		else set_signal((int)n, text);
		return trap_list[n] != NULL;
	case PART_SETOPTS: set_options("SHELLOPTS", text, "set", 1); return 1;
	case PART_SHOPTS:
		set_bashopts();
		set_options("BASHOPTS", text, "shopt", 0);
		restored_aliases = holds(text, "expand_aliases", 14);
		return 1;
	case PART_UMASK: sys(NR_umask, p->attributes & 0777, 0, 0); return 1;
	case PART_CWD: {
		long failed = sys(NR_chdir, text, 0, 0);
		if (failed >= 0) {
			set_working_directory(text);
			return 1;
		}
		builtin_error("%s: %s", text, strerror((int)-failed));
		stand_here();
		return 0;
	}
	case PART_POSITIONAL: {
		WORD_LIST *word = make_word_list(make_word(text), NULL), **end = &restored_positional;
		while (*end) end = &(*end)->next;
		*end = word;
		return 1;
	}
	case PART_DISABLED: {
		struct builtin *b = builtin_address_internal(name, 1);
		if (b) b->flags &= ~BUILTIN_ENABLED;
		return b != NULL;
	}
	case PART_DIRECTORY: call_builtin("pushd", "-n", text); return 1;
	case PART_UNSET_SPECIAL: makunbound(name, shell_variables); return 1;
	case PART_RESTRICTED: call_builtin("set", "-r", NULL); return 1;
	}
	return 0;
}

/* Where a part stands in the order of restoring. Functions are parsed first, with extended globs on and no alias or
   option in the way, and stand aside while the rest is restored; what changes how the shell evaluates comes last. */
static int rank(u32 kind)
{
	switch (kind) {
	case PART_FUNCTION: return 0;
	case PART_SCALAR: case PART_ARRAY: case PART_ASSOC: case PART_UNSET_SPECIAL: return 1;
	case PART_NAMEREF: return 2;
	case PART_ALIAS: case PART_UMASK: case PART_CWD: case PART_POSITIONAL: case PART_DIRECTORY: return 3;
	case PART_SETOPTS: return 4;
	case PART_SHOPTS: return 5; /* after the posix option, which changes some */
	case PART_TRAP: return 6;
	case PART_DISABLED: return 7;
	case PART_RESTRICTED: return 8;
	case PART_LOST: return 8;
	}
	return -1;
}
enum { RANKS = 9 };

/* Restores the parts that stdin holds; stderr takes bash's complaints. Parts that fail are named in the answer. */
static void restore(u64 size)
{
	struct state_head head = { 0, 0, 0 };
	u8 *bytes = xmalloc(size + 1);
	u64 have = 0;
	while (have < size) {
		long n = sys6(NR_pread64, 0, (long)(bytes + have), size - have, have, 0, 0);
		if (n == -EINTR) continue;
		if (n <= 0) break;
		have += n;
	}
	if (have >= sizeof head) memcpy(&head, bytes, sizeof head);
	out.len = 0;
	if (head.magic == STATE_MAGIC) {
		expand_aliases = 0;
		purge();
		call_builtin("shopt", "-s", "extglob");
		for (int r = 0; r < RANKS; r++) {
			u64 at = sizeof head;
			if (r == 1) {
				restored_functions = shell_functions;
				shell_functions = hash_create(0);
			}
			for (u32 i = 0; i < head.parts; i++) {
				struct part p;
				char *name, *text;
				u32 ok;
				if (at + sizeof p > have) break;
				memcpy(&p, bytes + at, sizeof p);
				at += sizeof p;
				if (p.name > have - at || p.text > have - at - p.name) break;
				if (rank(p.kind) == r) {
					name = xmalloc(p.name + 1);
					memcpy(name, bytes + at, p.name);
					name[p.name] = 0;
					text = xmalloc(p.text + 1);
					memcpy(text, bytes + at + p.name, p.text);
					text[p.text] = 0;
					ok = restore_part(&p, name, text);
					if (!ok) { /* a directory has no name but its path */
						const char *called = p.kind == PART_CWD ? text : name;
						u32 n = (u32)length(called);
						put(&p.kind, sizeof p.kind);
						put(&n, sizeof n);
						put(called, n);
					}
					xfree(name);
					xfree(text);
				}
				at += p.name + p.text;
			}
		}
		if (restored_positional) {
			struct builtin *set = builtin_address_internal((char *)"set", 1);
			WORD_LIST *words = make_word_list(make_word("--"), restored_positional);
			set->function(words);
			dispose_words(words);
			restored_positional = NULL;
		}
		hash_dispose(shell_functions);
		shell_functions = restored_functions;
		expand_aliases = restored_aliases;
	}
	xfree(bytes);
}

/* ---------------------------------------------------------------- the end of the shell */
/* Runs when bash exits by itself: `exit`, `set -e`, a fatal expansion, a failed `exec`, in whatever function or trap. */
__attribute__((destructor)) static void at_exit(void)
{
	if (!share || sys(NR_getpid, 0, 0, 0) != shell_pid || !running) return;
	variable_context = 0;
	shell_variables = global_variables;
	temporary_env = NULL;
	step_back();
	if (died_of_errexit) call_builtin("set", "+e", NULL);
	write_state();
	if (!hand_over() && !share_state()) reply(REPLY_UNKEPT, 0, 0, NULL, 0, -1);
}

/* The socket is gone: say on the shared page how the command ended, and leave without the user's EXIT trap. */
static void leave_by_page(void)
{
	write_state();
	share_state();
	share->status = (u32)last_command_exit_value;
	share->completed[0] = nonce[0];
	__atomic_store_n(&share->completed[1], nonce[1], __ATOMIC_RELEASE);
	leave(0);
}

/* After a command: the state, if it changed. Off the answer's path: the status is already sent. */
static int settle(u64 print)
{
	if (print == saved_print) return reply(REPLY_SETTLED, 0, 0, NULL, 0, -1);
	write_state();
	/* Too large for the user's own limit on files: the agent keeps the state from before, and is not left waiting. */
	if (!hand_over()) return reply(REPLY_UNKEPT, 0, 0, NULL, 0, -1);
	mark_bodies();
	saved_print = fingerprint();
	return 1;
}

static void run(struct request *rq, u8 *payload)
{
	u8 *at = payload, *end = payload + rq->payload;
	int ready = 1, jump;
	u64 print = 0;
	char *text;
	for (u32 i = 0; i < rq->session_vars + rq->command_vars; i++) {
		struct assignment a;
		char *name, *value, *expect;
		if ((u64)(end - at) < sizeof a) leave(1);
		memcpy(&a, at, sizeof a);
		if ((u64)(end - at) - sizeof a < (u64)a.name + a.value + a.expect + 3) leave(1);
		name = (char *)at + sizeof a;
		value = name + a.name + 1;
		expect = value + a.value + 1;
		at = (u8 *)expect + a.expect + 1;
		if (i < rq->session_vars) {
			assign(&a, name, value, expect);
		} else {
			step_aside(name);
			if (a.op & ASSIGN_SET) give(name, value);
			changed(name);
		}
	}
	if ((u64)(end - at) < (u64)rq->home + rq->cwd + rq->text + 2) leave(1);
	begin_session((char *)at);
	at += rq->home + 1;
	if (rq->cwd) ready = go_to((char *)at);
	at += rq->cwd + 1;
	text = xmalloc((usize)rq->text + 1);
	memcpy(text, at, rq->text);
	text[rq->text] = 0;
	xfree(payload);
	died_of_errexit = 0;
	if (!ready) {
		last_command_exit_value = 1;
		xfree(text);
	} else {
		running = 1;
		jump = evaluate(text);
		if (jump) {
			int status = jump == JUMP_FORCE_EOF ? 127 : jump == JUMP_DISCARD ? 1 : last_command_exit_value;
			if (sys(NR_getpid, 0, 0, 0) == shell_pid) died_of_errexit = jump == JUMP_ERREXIT;
			last_command_exit_value = status;
			exit_shell(status);
		}
		if (sys(NR_getpid, 0, 0, 0) != shell_pid) exit_shell(last_command_exit_value);
		running = 0;
	}
	step_back();
	fflush(NULL);
	/* Everything of this command is written; its pipes end here unless a background job holds them. */
	for (int fd = 0; fd < 3; fd++) sys(NR_close, fd, 0, 0);
	if (print_cost < 1 << 17) print = fingerprint();
	if (print && print == saved_print) {
		if (!reply(REPLY_STATUS, last_command_exit_value, SETTLED_UNCHANGED, NULL, 0, -1)) leave_by_page();
		return;
	}
	{
		/* Who is told of the command may count on its state: what is to end the shell waits until that is handed over. */
		u64 old = hold_signals();
		/* One that came before ends the command with it. */
		if (terminating_signal) {
			let_signals(old);
			termsig_handler(terminating_signal);
		}
		if (!reply(REPLY_STATUS, last_command_exit_value, SETTLED_LATER, NULL, 0, -1)) leave_by_page();
		if (!settle(print ? print : fingerprint())) leave_by_page();
		let_signals(old);
	}
}

/* ---------------------------------------------------------------- the loop */
/* Waits for a request. A signal that is to end the shell does so while it waits: it is let through only by the wait itself, so
   that none comes between the look and the wait and is not seen before the next command, which would die of it. */
static void await_request(void)
{
	struct { int fd; short events, revents; } request = { control, 1 /* POLLIN */, 0 };
	for (;;) {
		u64 old = hold_signals();
		long n = -EINTR;
		if (!terminating_signal) n = sys6(NR_ppoll, (long)&request, 1, 0, (long)&old, 8, 0);
		let_signals(old);
		if (terminating_signal) termsig_handler(terminating_signal);
		if (n != -EINTR) return;
	}
}

/* Receives one datagram and up to three descriptors. Standard input, output and error are closed at this point, so the
   descriptors arrive as 0, 1 and 2 whatever the limit on open files is. */
static long receive(int *fds)
{
	struct iovec iov = { datagram, sizeof datagram };
	struct cmsg c;
	struct msghdr m = { NULL, 0, 0, &iov, 1, &c, sizeof c, 0 };
	long n;
	do {
		await_request();
		m.controllen = sizeof c;
		n = sys(NR_recvmsg, control, &m, 0);
	} while (n == -EINTR);
	*fds = 0;
	if (n > 0 && m.controllen >= sizeof(usize) + 8) *fds = (int)((c.len - sizeof(usize) - 8) / sizeof(int));
	if (n > 0 && (m.flags & MSG_CTRUNC)) *fds = -1;
	return n;
}

static void loop(void)
{
	for (;;) {
		struct request rq;
		u8 *payload;
		u64 have;
		int fds;
		long n = receive(&fds);
		if (n == 0) leave(0); /* the agent let go of the session */
		if (n < (long)sizeof rq) leave_by_page();
		memcpy(&rq, datagram, sizeof rq);
		if (rq.magic != REQUEST_MAGIC) leave(1);
		nonce[0] = rq.nonce[0];
		nonce[1] = rq.nonce[1];
		have = (u64)n - sizeof rq;
		if (have > rq.payload) leave(1);
		payload = xmalloc(rq.payload + 1);
		memcpy(payload, datagram + sizeof rq, have);
		while (have < rq.payload) {
			int none;
			n = receive(&none);
			if (n <= 0) leave(1);
			if ((u64)n > rq.payload - have) leave(1);
			memcpy(payload + have, datagram, (usize)n);
			have += (u64)n;
		}
		if (fds != 3) { /* `ulimit -n 2`: not a shell that can run anything; a fresh one gets this command */
			write_state();
			if (!hand_over() && !share_state()) reply(REPLY_UNKEPT, 0, 0, NULL, 0, -1);
			reply(REPLY_REFUSED, 0, 0, NULL, 0, -1);
			leave(0);
		}
		share->begun[0] = nonce[0];
		__atomic_store_n(&share->begun[1], nonce[1], __ATOMIC_RELEASE);
		last_command_exit_value = (int)rq.last_status;
		if (rq.kind == KIND_RUN) {
			run(&rq, payload);
		} else {
			xfree(payload);
			restore(rq.state);
			mark_bodies();
			fflush(NULL);
			for (int fd = 0; fd < 3; fd++) sys(NR_close, fd, 0, 0);
			last_command_exit_value = (int)rq.last_status;
			saved_print = out.len ? 0 : fingerprint();
			if (!reply(REPLY_RESTORED, 0, 0, out.at, out.len, -1)) leave(1);
		}
	}
}

static int number(const char *s)
{
	int n = 0;
	while (*s >= '0' && *s <= '9') n = n * 10 + (*s++ - '0');
	return n;
}

/* The structures this file declares for itself are those of this bash. */
static int layout_is_known(void)
{
	SHELL_VAR *v = find_variable("BASH_VERSION");
	/* Those that this object was built and tried with; another one's structures may differ. */
	static const char *const versions[] = { "4.3.", "4.4.", "5.0.", "5.1.", "5.2.", "5.3.", NULL };
	int seen = 0, known = 0;
	if (!v || !v->name || !equal(v->name, "BASH_VERSION") || !v->value) return 0;
	for (const char *const *version = versions; *version; version++) {
		usize i = 0;
		while (i < 4 && v->value[i] == (*version)[i]) i++;
		known |= i == 4;
	}
	if (!known) return 0;
	EACH_BUCKET(b, global_variables->table) seen += equal(b->key, ((SHELL_VAR *)b->data)->name);
	return seen == global_variables->table->nentries && shell_variables == global_variables;
}

static int sandcrab_builtin(WORD_LIST *words)
{
	u32 len = sizeof control_cookie;
	const char *version;
	long at;
	int share_fd;
	if (!words || !words->next || !layout_is_known()) return 2;
	set_apart();
	control = number(words->word->word);
	share_fd = number(words->next->word->word);
	if (sys6(NR_getsockopt, control, SOL_SOCKET, SO_COOKIE, (long)&control_cookie, (long)&len, 0) < 0) return 2;
	at = sys6(NR_mmap, 0, sizeof *share, 3 /* READ|WRITE */, 1 /* SHARED */, share_fd, 0);
	if (at < 0 && at > -4096) return 2;
	share = (struct share *)at;
	shell_pid = sys(NR_getpid, 0, 0, 0);
	first_limits = limits_print();
	sys(NR_fcntl, control, 2 /* F_SETFD */, 1 /* FD_CLOEXEC */);
	sys(NR_close, share_fd, 0, 0);
	makunbound("BASH_EXECUTION_STRING", shell_variables);
	EACH_BUCKET(b, global_variables->table) {
		SHELL_VAR *v = b->data;
		if ((v->dynamic_value || v->assign_func) && special_count < 64) specials[special_count++] = join("", v->name);
	}
	call_builtin("enable", "-d", "sandcrab"); /* the user cannot call it, and does not see it */
	for (int fd = 0; fd < 3; fd++) sys(NR_close, fd, 0, 0);
	version = value_of("BASH_VERSION");
	if (!reply(REPLY_HELLO, 0, 0, version, length(version), -1)) leave(1);
	loop();
	return 0;
}

static char *const long_doc[] = { NULL };
__attribute__((visibility("default"))) struct builtin sandcrab_struct = { (char *)"sandcrab", sandcrab_builtin, BUILTIN_ENABLED, long_doc, "sandcrab", NULL };
