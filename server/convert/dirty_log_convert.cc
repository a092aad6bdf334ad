#include "server/convert/dirty_log_convert.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "google/protobuf/duration.pb.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/dirty/dirty_log_types.h"
#include "mmu_core/dirty/log_owner.h"
#include "mmu_core/vm/core/vm_config.h"
#include "server/base/errors.h"
#include "server/base/owner_token.h"
#include "server/base/wall_time.h"
#include "server/convert/convert.h"

namespace mmud {
namespace {

constexpr size_t kMaxOwnerBytes = 128;
constexpr size_t kLogIdDigits = 32;
constexpr absl::Duration kMinLease = absl::Seconds(1);
constexpr absl::Duration kMaxLease = absl::Hours(1);

// Whether UTF-8 text has control characters: ASCII's, or U+0080 to U+009F.
bool HasControlCharacters(absl::string_view text) {
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte < 0x20 || byte == 0x7f) return true;
    if (byte == 0xc2 && i + 1 < text.size() &&
        static_cast<unsigned char>(text[i + 1]) < 0xa0) {
      return true;
    }
  }
  return false;
}

// The digit's value; -1 if `c` is not a hexadecimal digit.
int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

}  // namespace

absl::StatusOr<absl::optional<mmu::LogId>> ToLogId(absl::string_view log_id) {
  absl::optional<mmu::LogId> id;
  if (log_id.empty()) return id;
  std::array<uint64_t, 2> words = {};
  bool valid = log_id.size() == kLogIdDigits;
  for (size_t i = 0; valid && i < log_id.size(); ++i) {
    const int digit = HexDigit(log_id[i]);
    valid = digit >= 0;
    uint64_t& word = words[i / 16];
    word = word << 4 | static_cast<uint64_t>(std::max(digit, 0));
  }
  if (!valid) {
    return WrongValue(mmu::Reason::kInvalidLogId, "log_id", Quote(log_id),
                      "empty or 32 hexadecimal digits in lower case, as "
                      "DirtyLog.log_id has them");
  }
  id.emplace();
  id->high = words[0];
  id->low = words[1];
  return id;
}

absl::StatusOr<std::vector<uint32_t>> ToSlotIds(
    const google::protobuf::RepeatedField<int32_t>& ids) {
  std::vector<uint32_t> slots;
  for (int i = 0; i < ids.size(); ++i) {
    const std::string field = absl::StrCat("slots[", i, "]");
    const absl::StatusOr<uint32_t> slot = ToSlot(ids[i], field);
    if (!slot.ok()) return slot.status();
    if (!slots.empty() && *slot <= slots.back()) {
      return WrongValue(mmu::Reason::kInvalidSlot, field, ids[i],
                        absl::StrCat("above the one before, ", slots.back(),
                                     ": the ids ascend"));
    }
    slots.push_back(*slot);
  }
  return slots;
}

absl::StatusOr<mmu::LogCall> ToLogCall(absl::string_view owner_token,
                                       absl::string_view log_id) {
  const absl::StatusOr<mmu::OwnerKey> key = ToOwnerKey(owner_token);
  if (!key.ok()) return key.status();
  const absl::StatusOr<absl::optional<mmu::LogId>> id = ToLogId(log_id);
  if (!id.ok()) return id.status();
  mmu::LogCall call;
  call.key = *key;
  call.now = mmu::MonotonicTime::Now();
  call.log_id = *id;
  return call;
}

absl::StatusOr<mmu::LogClaim> ToLogClaim(
    absl::string_view owner, absl::string_view owner_token,
    const google::protobuf::Duration* lease) {
  mmu::LogClaim claim;
  if (owner.empty() || owner.size() > kMaxOwnerBytes ||
      HasControlCharacters(owner)) {
    return WrongValue(mmu::Reason::kInvalidOwner, "owner", Quote(owner),
                      "a name of 1 to 128 bytes without control characters");
  }
  claim.owner = std::string(owner);
  const absl::StatusOr<mmu::OwnerKey> key = ToOwnerKey(owner_token);
  if (!key.ok()) return key.status();
  claim.key = *key;
  if (lease != nullptr &&
      (!FromProto(*lease, &claim.lease) || claim.lease < kMinLease ||
       claim.lease > kMaxLease)) {
    return WrongValue(mmu::Reason::kInvalidLease, "lease", Show(*lease),
                      "from 1 s to 1 h, or unset, which is 30 s");
  }
  return claim;
}

v1::DirtyLogMode ModeOf(const mmu::VmConfig& config) {
  return config.dirty_ring_entries != 0 ? v1::DIRTY_LOG_MODE_RING
                                        : v1::DIRTY_LOG_MODE_BITMAP;
}

v1::DirtyLogProtection ProtectionOf(const mmu::VmConfig& config) {
  return config.pml == mmu::VmConfig::Pml::kYes
             ? v1::DIRTY_LOG_PROTECTION_D_BIT
             : v1::DIRTY_LOG_PROTECTION_WRITE_PROTECT;
}

v1::DirtyLogSplit ToProto(mmu::SplitPolicy split) {
  switch (split) {
    case mmu::SplitPolicy::kNone:
      return v1::DIRTY_LOG_SPLIT_NONE;
    case mmu::SplitPolicy::kEager:
      return v1::DIRTY_LOG_SPLIT_EAGER;
    case mmu::SplitPolicy::kOnClear:
      return v1::DIRTY_LOG_SPLIT_ON_CLEAR;
  }
  return v1::DIRTY_LOG_SPLIT_UNSPECIFIED;
}

v1::UndeliveredPages ToProto(const mmu::UndeliveredCounts& counts) {
  v1::UndeliveredPages proto;
  proto.set_open_page_count(static_cast<int64_t>(counts.open));
  proto.set_sealed_page_count(static_cast<int64_t>(counts.sealed));
  proto.set_in_flight_page_count(static_cast<int64_t>(counts.in_flight));
  return proto;
}

v1::DirtyLog ToProto(const VmFacts& vm, const mmu::DirtyLogView& log) {
  const mmu::DirtyLogState& state = log.state;
  v1::DirtyLog proto;
  proto.set_vm(vm.name);
  proto.set_vm_uid(vm.uid);
  proto.set_log_id(state.id.ToString());
  proto.set_owner(state.owner);
  *proto.mutable_owner_since_time() = ToProto(WallTime::Of(state.owner_since));
  *proto.mutable_lease() = ToProto(state.lease);
  *proto.mutable_lease_expire_time() = ToProto(WallTime::Of(state.lease_end));
  proto.set_mode(ModeOf(vm.config));
  proto.set_protection(ProtectionOf(vm.config));
  proto.set_initially_set(log.config.initially_set == mmu::InitiallySet::kYes);
  proto.set_split(ToProto(log.config.split));
  proto.set_log_new_memslots(log.config.new_memslots ==
                             mmu::DirtyLogConfig::NewMemslots::kLog);
  *proto.mutable_start_time() = ToProto(WallTime::Of(state.start));
  if (log.ttl != absl::InfiniteDuration()) {
    *proto.mutable_ttl() = ToProto(log.ttl);
    *proto.mutable_expire_time() = ToProto(WallTime::Of(log.ttl_end));
  }
  proto.set_open_epoch(static_cast<int64_t>(state.open_epoch));
  proto.set_sealed_epoch(static_cast<int64_t>(state.sealed_epoch));
  for (const uint64_t epoch : state.epochs_in_flight) {
    proto.add_epochs_in_flight(static_cast<int64_t>(epoch));
  }
  if (state.undelivered_since < mmu::MonotonicTime::InfiniteFuture()) {
    *proto.mutable_oldest_undelivered_seal_time() =
        ToProto(WallTime::Of(state.undelivered_since));
  }
  for (const mmu::SlotLogState& slot : state.slots) {
    *proto.add_slots() = ToProto(mmu::SlotLogView{slot, log.config});
  }
  return proto;
}

v1::SlotDirtyLog ToProto(const mmu::SlotLogView& slot) {
  const mmu::SlotLogState& state = slot.state;
  v1::SlotDirtyLog proto;
  proto.set_slot(static_cast<int32_t>(state.slot));
  proto.set_state(v1::DIRTY_LOG_STATE_ACTIVE);
  proto.set_first_epoch(static_cast<int64_t>(state.first_epoch));
  proto.set_sealed_page_count(static_cast<int64_t>(state.sealed_page_count));
  proto.set_in_flight_page_count(
      static_cast<int64_t>(state.in_flight_page_count));
  proto.set_initially_set(state.joined ||
                          slot.config.initially_set == mmu::InitiallySet::kYes);
  proto.set_split(ToProto(slot.config.split));
  return proto;
}

v1::SlotDirtyLog NoDirtyLogOf(uint32_t slot) {
  v1::SlotDirtyLog proto;
  proto.set_slot(static_cast<int32_t>(slot));
  proto.set_state(v1::DIRTY_LOG_STATE_OFF);
  return proto;
}

}  // namespace mmud
