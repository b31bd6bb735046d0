# machine.sh TREE WORK KIND: a machine of its own, whose files are those of TREE; what is written is in memory only.
# KIND: systemd, started as its first process, or plain, which only waits.
#
# Run in a mount namespace of its own.  Says the pid of the process whose child is the machine's first, and ends
# with all that is in the machine when standard input does.
set -eu
tree=$1 work=$2 kind=$3
mount -t tmpfs tmpfs "$work"
mkdir "$work/cgroup" "$work/upper" "$work/work" "$work/root"
if [ "$kind" = systemd ]; then
    mount -t cgroup2 cgroup2 "$work/cgroup"
    group=$work/cgroup/cvm-qmail-test-$$
    mkdir "$group"
    echo $$ > "$group/cgroup.procs"
fi

cat > "$work/first" <<'END'
set -eu
tree=$1 work=$2 kind=$3
root=$work/root
mount -t overlay overlay -o "lowerdir=$tree,upperdir=$work/upper,workdir=$work/work" "$root"
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
[ "$kind" != systemd ] || mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/shm" "$root/dev/pts"
ln -s /proc/self/fd "$root/dev/fd"
ln -s pts/ptmx "$root/dev/ptmx"
# chroot would not do: systemd makes namespaces for services from what is mounted on /.
mkdir "$root/run/old"
cd "$root"
pivot_root . run/old
umount -l run/old
rmdir run/old
if [ "$kind" = systemd ]; then
    # What concerns the kernel, or a console, is not this machine's.
    for unit in systemd-sysctl systemd-modules-load systemd-remount-fs systemd-udevd console-getty; do
        ln -sf /dev/null "etc/systemd/system/$unit.service"
    done
    for unit in dev-hugepages sys-kernel-debug sys-kernel-tracing sys-fs-fuse-connections; do
        ln -sf /dev/null "etc/systemd/system/$unit.mount"
    done
    exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system
fi
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin /usr/bin/python3 -c '
import os, signal, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while True:
    time.sleep(3600)'
END

unshare --mount --propagation private --pid --fork --kill-child --uts --ipc --net --cgroup \
    sh "$work/first" "$tree" "$work" "$kind" </dev/null >"$work/console" 2>&1 &
echo $!
read -r _ || :
kill -KILL $! 2>/dev/null || :
wait
if [ "$kind" = systemd ]; then
    echo $$ > "$work/cgroup/cgroup.procs"
    # The kernel takes a moment to empty the groups of what was killed.
    tries=0
    until find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || [ $tries = 50 ]; do
        tries=$((tries + 1))
        sleep 0.1
    done
fi
