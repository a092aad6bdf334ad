// Who may change a dirty log: one owner at a time, known by a key.
//
//   stranger --- Acquire, once the lease ran out, or with force --> owner
//   owner    --- somebody else acquires --------------------------> former
//   owner
//
// Each call of the owner renews the lease. That the lease ran out takes nothing
// from the owner: it stays the owner until somebody acquires, however late that
// is. From then on its key is fenced: whatever it still has under way is
// refused wherever it arrives, also an attempt to acquire with that key. So a
// key is used for one ownership; who comes back makes up another.
//
// A key is the hash of a secret of the caller's. Who makes the hash keeps the
// secret to itself; nothing here ever returns a key.

#ifndef MMU_CORE_DIRTY_LOG_OWNER_H_
#define MMU_CORE_DIRTY_LOG_OWNER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "mmu_core/base/clock.h"

namespace mmu {

// The hash (SHA-256, or any other of 32 bytes) of an owner's secret. A value.
struct OwnerKey {
  std::array<uint8_t, 32> bytes = {};

  friend bool operator==(const OwnerKey&, const OwnerKey&) = default;
};

// How long an owner that makes no call keeps its log to itself, if it does not
// say otherwise.
inline constexpr absl::Duration kDefaultLease = absl::Seconds(30);

// Who asks to own a log.
struct LogClaim {
  OwnerKey key;
  std::string owner;                     // a name for people; any text
  absl::Duration lease = kDefaultLease;  // positive
};

// Externally synchronised by the lock of the log. `now` is that of
// MonotonicTime; a `now` that is earlier than one before counts as that one.
class LogOwner {
 public:
  LogOwner(const LogClaim& claim, MonotonicTime now);

  const std::string& name() const { return claim_.owner; }
  absl::Duration lease() const { return claim_.lease; }
  // When the owner's exclusivity ends; earlier than now if it has.
  MonotonicTime lease_end() const { return last_call_ + claim_.lease; }
  // Of the owner's calls, the last.
  MonotonicTime last_call() const { return last_call_; }
  // When it became the owner.
  MonotonicTime since() const { return since_; }
  bool Is(const OwnerKey& key) const { return key == claim_.key; }
  // As a call of the owner does.
  void Renew(MonotonicTime now);

  // Of a call by whoever has `key`. OK for the owner, whose lease is renewed.
  // FAILED_PRECONDITION LOG_FENCED for a former owner, LOG_OWNED for anybody
  // else. Both name the owner and tell since when, and when its lease ends
  // (metadata "owner", "owned_for_seconds", "lease_remaining_seconds").
  absl::Status Admit(const OwnerKey& key, MonotonicTime now);

  enum class Force : uint8_t { kNo, kYes };
  enum class Acquired : uint8_t {
    kNewly,    // somebody else owned the log: the caller takes over
    kAlready,  // the caller was the owner: its lease is renewed, and is as long
               // as `claim` says from now on
  };
  // FAILED_PRECONDITION LOG_OWNED if somebody else is the owner, its lease
  // lasts and `force` is kNo; LOG_FENCED if the key was an owner's before. Then
  // nothing changed.
  absl::StatusOr<Acquired> Acquire(const LogClaim& claim, Force force,
                                   MonotonicTime now);

  // Former keys that are remembered. An older one is a stranger's again, which
  // is refused as well.
  static constexpr size_t kMaxFormerKeys = 1024;

 private:
  bool IsFormer(const OwnerKey& key) const;
  absl::Status Fenced(MonotonicTime now) const;
  absl::Status Owned(MonotonicTime now) const;

  LogClaim claim_;
  MonotonicTime since_;
  MonotonicTime last_call_;
  std::deque<OwnerKey> former_keys_;  // oldest first
};

}  // namespace mmu

#endif  // MMU_CORE_DIRTY_LOG_OWNER_H_
