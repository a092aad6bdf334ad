// A library for LD_PRELOAD that steps the wall clock of a program. The first 8
// bytes of a file are the clock's offset in nanoseconds, and each change takes
// effect at once. The environment variable STEPPED_WALL_CLOCK names the file;
// without it nothing changes.
//
// The library changes the clock that programs read, and the deadlines by this
// clock that they pass to the kernel in a futex, which is how Abseil waits. As
// with a real step, a wait in progress ends by the new clock. Waits and timers
// by the monotonic clock are unchanged.

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>

namespace {

constexpr int64_t kSecond = 1'000'000'000;
// The interval at which a wait checks whether the clock was set.
constexpr int64_t kSlice = 5'000'000;

int64_t Nanos(const timespec& time) {
  return static_cast<int64_t>(time.tv_sec) * kSecond + time.tv_nsec;
}

timespec FromNanos(int64_t nanos) {
  return {static_cast<time_t>(nanos / kSecond),
          static_cast<long>(nanos % kSecond)};
}

int64_t Offset() {
  static const std::atomic<int64_t>* const offset = [] {
    static const std::atomic<int64_t> none{0};
    const char* path = std::getenv("STEPPED_WALL_CLOCK");
    const int fd = path == nullptr ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return &none;
    void* const map = mmap(nullptr, sizeof(none), PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (map == MAP_FAILED) std::abort();
    return static_cast<const std::atomic<int64_t>*>(map);
  }();
  return offset->load();
}

template <typename Function>
Function Next(const char* name) {
  void* const found = dlsym(RTLD_NEXT, name);
  if (found == nullptr) std::abort();
  return reinterpret_cast<Function>(found);
}

int RealClock(clockid_t clock, timespec* time) {
  static const auto next = Next<int (*)(clockid_t, timespec*)>("clock_gettime");
  return next(clock, time);
}

int64_t RealNanos() {
  timespec time = {};
  RealClock(CLOCK_REALTIME, &time);
  return Nanos(time);
}

using Syscall = long (*)(long, long, long, long, long, long, long);

// `deadline` is by the stepped clock.
long WaitInSlices(Syscall next, long number, long word, long op, long value,
                  int64_t deadline, long word2, long bits) {
  for (;;) {
    const int64_t now = RealNanos();
    const int64_t until = deadline - Offset();
    const timespec slice =
        FromNanos(std::max<int64_t>(1, std::min(until, now + kSlice)));
    const long result = next(number, word, op, value,
                             reinterpret_cast<long>(&slice), word2, bits);
    if (result != -1 || errno != ETIMEDOUT) return result;
    if (RealNanos() + Offset() >= deadline) {
      errno = ETIMEDOUT;
      return -1;
    }
  }
}

}  // namespace

extern "C" {

int clock_gettime(clockid_t clock, timespec* time) noexcept {
  const int result = RealClock(clock, time);
  if (result == 0 &&
      (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
    *time = FromNanos(Nanos(*time) + Offset());
  }
  return result;
}

int gettimeofday(timeval* time, void*) noexcept {
  const int64_t now = RealNanos() + Offset();
  time->tv_sec = static_cast<time_t>(now / kSecond);
  time->tv_usec = static_cast<suseconds_t>(now % kSecond / 1000);
  return 0;
}

time_t time(time_t* time) noexcept {
  const auto now = static_cast<time_t>((RealNanos() + Offset()) / kSecond);
  if (time != nullptr) *time = now;
  return now;
}

long syscall(long number, ...) noexcept {
  static const auto next = Next<Syscall>("syscall");
  va_list list;
  va_start(list, number);
  long a[6];
  for (long& argument : a) argument = va_arg(list, long);
  va_end(list);
  const auto command = static_cast<int>(a[1]) & FUTEX_CMD_MASK;
  if (number == SYS_futex && command == FUTEX_WAIT_BITSET &&
      (static_cast<int>(a[1]) & FUTEX_CLOCK_REALTIME) != 0 && a[3] != 0) {
    const int64_t deadline = Nanos(*reinterpret_cast<const timespec*>(a[3]));
    return WaitInSlices(next, number, a[0], a[1], a[2], deadline, a[4], a[5]);
  }
  return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

}  // extern "C"
