"""The system calls that a program may make, as a filter that bubblewrap installs.

A list of what is allowed: system calls that are newer than libseccomp have no names in it, so a list of what is forbidden
would let them through. What is not allowed fails with ENOSYS, as on an older kernel, so that libraries take another way.
Left out on purpose are tracing and reading other processes (ptrace, process_vm_*, pidfd_getfd), new namespaces and mounts,
io_uring, userfaultfd, keyrings, bpf, perf, personality, modify_ldt, and System V and POSIX queues, which outlive a process.
"""

import errno
import socket
import tempfile
from typing import Any

from distillery.core.errors import SandboxError

NEW_NAMESPACES = 0x7E020000  # every CLONE_NEW... flag of clone
FILES = """
    access chdir chmod chown close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 fadvise64 fallocate
    fchdir fchmod fchmodat fchown fchownat fcntl fdatasync fgetxattr flistxattr flock fsetxattr fstat fstatfs fsync ftruncate
    getcwd getdents getdents64 getxattr lchown lgetxattr link linkat listxattr llistxattr lseek lstat mkdir mkdirat mknod
    mknodat newfstatat open openat openat2 pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink
    readlinkat readv rename renameat renameat2 rmdir sendfile stat statfs statx symlink symlinkat sync_file_range truncate umask
    unlink unlinkat utime utimensat utimes futimesat write writev ioctl memfd_create
"""
MEMORY = """
    brk madvise membarrier mincore mlock mlock2 munlock mmap mprotect mremap msync munmap get_mempolicy
"""
PROCESSES = """
    arch_prctl execve execveat exit exit_group fork vfork futex futex_waitv get_robust_list set_robust_list set_tid_address
    getpgid getpgrp getpid getppid getpriority setpriority getrlimit setrlimit getrusage getsid gettid kill tgkill tkill prctl
    restart_syscall rseq sched_getaffinity sched_setaffinity sched_getattr sched_getparam sched_get_priority_max
    sched_get_priority_min sched_getscheduler sched_yield setpgid setsid wait4 waitid getcpu pidfd_send_signal
    getuid geteuid getgid getegid getgroups getresuid getresgid setuid setgid setreuid setregid setresuid setresgid setgroups
    capget sysinfo times uname getrandom
"""
SIGNALS_AND_TIME = """
    alarm getitimer setitimer pause rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend
    rt_sigtimedwait sigaltstack signalfd signalfd4 clock_getres clock_gettime clock_nanosleep gettimeofday nanosleep time
    timer_create timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime
    epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 poll ppoll select pselect6
"""
LOCAL_SOCKETS = """
    accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg recvmsg sendmmsg sendmsg sendto
    setsockopt shutdown
"""
ALLOWED = " ".join((FILES, MEMORY, PROCESSES, SIGNALS_AND_TIME, LOCAL_SOCKETS)).split()


def compiled() -> bytes:
    """The filter as BPF instructions for the machine's architecture. Raises SandboxError where libseccomp is missing."""
    try:
        import pyseccomp
    except (ImportError, RuntimeError, OSError) as error:
        raise SandboxError(f"libseccomp is not installed ({error}); install your system's package `libseccomp2`") from None
    rules = pyseccomp.SyscallFilter(pyseccomp.ERRNO(errno.ENOSYS))
    for name in ALLOWED:
        _allow(rules, name)
    _allow(rules, "clone", pyseccomp.Arg(0, pyseccomp.MASKED_EQ, NEW_NAMESPACES, 0))  # clone3's flags cannot be read: refused
    _allow(rules, "prlimit64", pyseccomp.Arg(0, pyseccomp.EQ, 0))  # one's own limits, not another process's
    _allow(rules, "pidfd_open", pyseccomp.Arg(0, pyseccomp.GT, 1))
    rules.add_rule(pyseccomp.KILL_PROCESS, "pidfd_open", pyseccomp.Arg(0, pyseccomp.EQ, 1))  # the server
    for call in ("socket", "socketpair"):
        _allow(rules, call, pyseccomp.Arg(0, pyseccomp.EQ, socket.AF_UNIX))
    with tempfile.TemporaryFile() as file:
        rules.export_bpf(file)
        file.seek(0)
        return file.read()


def _allow(rules: Any, name: str, *conditions: Any) -> None:
    """Allows a system call, unless the machine's architecture or libseccomp has none of that name."""
    import pyseccomp

    try:
        rules.add_rule(pyseccomp.ALLOW, name, *conditions)
    except (ValueError, OSError):
        return
