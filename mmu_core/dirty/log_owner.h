// The owner of a dirty log: one at a time, identified by a key, may change it.
//
//   stranger --- Acquire, after the lease expired, or with force --> owner
//   owner    --- another caller acquires --------------------------> former
//   owner
//
// Each call of the owner renews the lease. An expired lease alone takes nothing
// from the owner: it stays the owner until another caller acquires, however
// late. From then on its key is fenced: its calls still under way are refused
// wherever they arrive, also an attempt to acquire with that key. So a key is
// used for one ownership; a former owner that returns makes a new key.
//
// A key is the hash of a secret of the caller. The caller that makes the hash
// keeps the secret to itself; no function here returns a key.

#ifndef MMU_CORE_DIRTY_LOG_OWNER_H_
#define MMU_CORE_DIRTY_LOG_OWNER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
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

// The lease of an owner that does not choose one: how long its log stays
// exclusive if it makes no call.
inline constexpr absl::Duration kDefaultLease = absl::Seconds(30);

// The claim of a caller that asks to own a log.
struct LogClaim {
  OwnerKey key;
  std::string owner;                     // a name for people; any text
  absl::Duration lease = kDefaultLease;  // positive
};

// Externally synchronised by the lock of the log. `now` is a MonotonicTime; a
// `now` earlier than a previous one counts as that one.
class LogOwner {
 public:
  LogOwner(const LogClaim& claim, MonotonicTime now);

  const std::string& name() const { return claim_.owner; }
  absl::Duration lease() const { return claim_.lease; }
  // When the owner's exclusivity ends; in the past if it has ended.
  MonotonicTime lease_end() const { return last_call_ + claim_.lease; }
  // The time of the owner's last call.
  MonotonicTime last_call() const { return last_call_; }
  // When the owner acquired the log.
  MonotonicTime since() const { return since_; }
  bool Is(const OwnerKey& key) const { return key == claim_.key; }
  // Renews the lease, as a call of the owner does.
  void Renew(MonotonicTime now);

  // Admits or refuses a call with `key`. OK for the owner, whose lease is
  // renewed. FAILED_PRECONDITION LOG_FENCED for a former owner, LOG_OWNED for
  // any other caller. Both errors name the owner, how long it has owned the
  // log, and when its lease ends (metadata "owner", "owned_for_seconds",
  // "lease_remaining_seconds").
  absl::Status Admit(const OwnerKey& key, MonotonicTime now);

  enum class Force : uint8_t { kNo, kYes };
  enum class Acquired : uint8_t {
    kNewly,    // another caller owned the log: this one takes over
    kAlready,  // the caller was the owner: its lease is renewed, and is as long
               // as `claim` says from now on
  };
  // FAILED_PRECONDITION LOG_OWNED if another caller is the owner, its lease has
  // not expired and `force` is kNo; LOG_FENCED if the key was an owner's
  // before. Then nothing changed.
  absl::StatusOr<Acquired> Acquire(const LogClaim& claim, Force force,
                                   MonotonicTime now);

  // For the auditor: the owner's key is not a former one, its lease is
  // positive, and no call of it is older than its ownership.
  bool IsConsistent() const {
    return !IsFormer(claim_.key) && claim_.lease > absl::ZeroDuration() &&
           last_call_ >= since_ && former_keys_.size() <= kMaxFormerKeys;
  }

  // The number of former keys that are remembered. An older key counts as a
  // stranger's, which is refused as well.
  static constexpr size_t kMaxFormerKeys = 1024;

 private:
  bool IsFormer(const OwnerKey& key) const;
  // The metadata of LOG_FENCED and LOG_OWNED.
  std::map<std::string, std::string> Facts(MonotonicTime now) const;
  absl::Status Fenced(MonotonicTime now) const;
  absl::Status Owned(MonotonicTime now) const;

  LogClaim claim_;
  MonotonicTime since_;
  MonotonicTime last_call_;
  std::deque<OwnerKey> former_keys_;  // oldest first
};

}  // namespace mmu

#endif  // MMU_CORE_DIRTY_LOG_OWNER_H_
