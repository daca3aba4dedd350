//! Other names for what a sandbox may not see, change or call (A27): no rule goes by name.

/// Reads each file that tells of the machine, and writes each one that changes it, by every other name that it has or can
/// be given; prints what was read or written. The control, a file that all may read, has to be readable by each name.
const ALIASES: &str = r#"
import subprocess
covered = ['/proc/cmdline', '/proc/diskstats', '/proc/partitions', '/proc/softirqs', '/proc/config.gz']
settings = ['/proc/sys/kernel/core_pattern', '/proc/sys/vm/drop_caches', '/proc/sysrq-trigger', '/sys/power/state',
            '/sys/kernel/mm/ksm/run']
os.makedirs('/tmp/proc', exist_ok=True)
os.makedirs('/tmp/all', exist_ok=True)
fd = os.open('/', os.O_RDONLY | os.O_DIRECTORY)
os.symlink('/', '/tmp/whole')
def names(path):
    yield path
    yield '//' + path[1:]
    yield '/proc/../' + path
    yield '/tmp/whole' + path
    for start in ['/proc/self/root', '/proc/thread-self/root', '/proc/self/cwd', f'/proc/self/fd/{fd}', f'/dev/fd/{fd}']:
        yield start + path
    tree = path.split('/')[1]
    yield f'/proc/self/root/tmp/whole/{tree}/./' + path.split('/', 2)[2]
def content(name):
    try:
        with open(name, 'rb') as file: return len(file.read(100))
    except OSError as error: return errno.errorcode[error.errno]
def written(name):
    def write():
        with open(name, 'wb') as file: file.write(b'0\n')
    return attempt(write)
os.chdir('/')
for name in names('/proc/uptime'):
    assert content(name) not in (0, 'ENOENT'), ('control', name, content(name))
for path in covered:
    for name in names(path):
        if content(name) not in (0, 'ENOENT', 'EACCES'): print('read', name, content(name))
for path in settings:
    for name in names(path):
        if written(name) == 'ok': print('written', name)

# A mount of its own would be a name more: of this tree, or of a /proc or /sys that nothing covers. None can be made,
# nor a cover taken away.
mounts = ['mount --bind /proc /tmp/proc', 'mount --rbind / /tmp/all', 'mount -t proc proc /tmp/proc',
          'mount -t sysfs sys /tmp/proc', 'umount /proc/cmdline', 'umount -l /proc/diskstats']
for options in (['-m'], ['-Urm'], ['-Urmpf']):
    for mount in mounts:
        done = subprocess.run(['unshare', *options, 'sh', '-c', mount], capture_output=True, text=True)
        if done.returncode == 0: print('mounted', options, mount)
for number in (428, 430, 432, 429, 442, 467):  # open_tree, fsopen, fsmount, move_mount, mount_setattr, open_tree_attr
    if call(number, -1, 0, 0, 0, 0) not in ('EPERM', 'ENOSYS'): print('mount API', number)
"#;

/// Runs this program under another name, by the dynamic loader and as a copy, and prints what the kernel refuses.
const PROGRAMS: &str = r#"
import glob, platform, shutil, subprocess
program = '''
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
for number in (425, 321, 323, 298):  # io_uring_setup, bpf, userfaultfd, perf_event_open
    libc.syscall(ctypes.c_long(number), 0, 0, 0, 0, 0)
    print(errno.errorcode.get(ctypes.get_errno()), end=' ')
'''
python = os.path.realpath('/usr/bin/python3')
loader = glob.glob('/lib64/ld-linux-*')[0]
shutil.copy(python, '/tmp/innocent')
os.link('/tmp/innocent', '/tmp/another')
fd = os.memfd_create('held')
with open(python, 'rb') as file: os.write(fd, file.read())
ways = [[python], [loader, python], [loader, '/tmp/innocent'], ['/tmp/innocent'], ['/tmp/another'],
        ['/proc/self/root' + python], [f'/proc/self/fd/{fd}'], [loader, f'/proc/self/fd/{fd}']]
for way in ways:
    ran = subprocess.run([*way, '-c', program], capture_output=True, text=True, pass_fds=[fd],
                         env={'PYTHONHOME': sys.prefix})
    print(ran.stdout.strip() or ran.stderr)
"#;

attack!(a27_other_names_for_what_is_covered, [root, rootless, without_landlock], |rig| {
    let sandbox = rig.sandbox();
    assert_eq!(sandbox.python(ALIASES), "");
    if rig.mode != crate::rig::Mode::Rootless {
        assert_eq!(rig.sandbox().python_as_user(ALIASES), "");
    }
});

attack!(a27_other_names_for_a_program, [root, rootless, without_landlock], |rig| {
    let refused = rig.sandbox().python(PROGRAMS);
    let ways: Vec<_> = refused.lines().collect();
    assert_eq!(ways.len(), 8, "{refused}");
    for way in &ways {
        assert_eq!(way, &ways[0], "{refused}");
        let errors: Vec<_> = way.split(' ').collect();
        assert_eq!(errors.len(), 4, "{refused}");
        assert!(errors.iter().all(|error| ["ENOSYS", "EPERM"].contains(error)), "{refused}");
    }
});
