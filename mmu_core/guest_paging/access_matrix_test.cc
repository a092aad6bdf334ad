// Checks walks with every combination of the bits in two levels of entries, the
// access and the control registers. The expected results come from a second
// implementation of the rules: it is written here from the manuals and shares
// nothing with the code under test.

#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/guest_paging/control_registers.h"
#include "mmu_core/guest_paging/cpu_role.h"
#include "mmu_core/guest_paging/guest_walk.h"
#include "mmu_core/guest_paging/guest_walker.h"
#include "mmu_core/memory/guest_words.h"
#include "mmu_core/paging/access_rights.h"
#include "mmu_core/testing/guest_memory_test_util.h"

namespace mmu::testing {
namespace {

// The result of a walk, as far as the tests compare it.
struct Outcome {
  bool allowed = false;
  uint64_t code = 0;       // if not allowed; ~0 for an EPT misconfiguration
  uint64_t gfn = 0;        // if allowed
  bool may_write = false;  // if allowed: the access that is granted has W
  uint64_t upper = 0;      // the entries afterwards
  uint64_t lower = 0;

  friend bool operator==(const Outcome&, const Outcome&) = default;
};

std::string Describe(const Outcome& o) {
  return absl::StrCat(o.allowed ? "allowed" : "denied", " code 0x",
                      absl::Hex(o.code), " gfn 0x", absl::Hex(o.gfn),
                      o.may_write ? " w" : "", " entries 0x",
                      absl::Hex(o.upper), " 0x", absl::Hex(o.lower));
}

constexpr uint64_t kUpperAddress = 0x5000;  // of both kinds of upper entries
constexpr uint64_t kLowerAddress = 0x345000;
constexpr uint64_t kLargeAddress = 0x40800000;  // 4 MiB aligned
constexpr uint64_t kAddress = 0x00c05000;       // directory entry 3 or 6
constexpr uint64_t kCodeOfMisconfiguration = ~uint64_t{0};

constexpr AccessKind kKinds[] = {AccessKind::kRead, AccessKind::kWrite,
                                 AccessKind::kExec};

// --- Legacy paging ---

struct Machine {
  int entry_bytes;
  bool wp, smep, smap, nx, pke;
};

bool Bit(uint64_t entry, int bit) { return (entry >> bit & 1) != 0; }

// SDM vol. 3, 4.6.1 and 4.6.2: the rights to an address that is translated.
bool MayAccess(const Machine& m, const GuestPageAccess& a, bool user_address,
               bool writable, bool executable) {
  const bool supervisor = a.privilege != Privilege::kUser;
  if (!supervisor && !user_address) return false;
  switch (a.kind) {
    case AccessKind::kExec:
      if (supervisor && user_address && m.smep) return false;
      return executable;
    case AccessKind::kWrite:
      if (!writable && (!supervisor || m.wp)) return false;
      break;
    case AccessKind::kRead:
      break;
  }
  const bool explicit_with_ac =
      a.privilege == Privilege::kSupervisor && a.rflags_ac;
  return !(supervisor && user_address && m.smap && !explicit_with_ac);
}

// SDM vol. 3, 4.6.2: keys restrict only data accesses to user addresses.
bool KeyForbids(const Machine& m, const GuestPageAccess& a, bool user_address,
                uint64_t leaf) {
  if (!m.pke || !user_address || a.kind == AccessKind::kExec) return false;
  const int key = static_cast<int>(leaf >> 59 & 15);
  if (Bit(a.pkru, 2 * key)) return true;
  if (a.kind != AccessKind::kWrite || !Bit(a.pkru, 2 * key + 1)) return false;
  return a.privilege == Privilege::kUser || m.wp;
}

// SDM vol. 3, 4.7 defines the error code, 4.8 the Accessed and Dirty bits. Only
// the bits 21, 51 and 63 of an entry can be reserved here.
Outcome Legacy(const Machine& m, const GuestPageAccess& a, uint64_t upper,
               uint64_t lower) {
  const bool write = a.kind == AccessKind::kWrite;
  uint64_t code = (write ? 2 : 0) | (a.privilege == Privilege::kUser ? 4 : 0);
  const bool nx_in_use = m.nx && m.entry_bytes == 8;
  if (a.kind == AccessKind::kExec && (nx_in_use || m.smep)) code |= 16;
  Outcome fault = {.code = code, .upper = upper, .lower = lower};

  const bool large = Bit(upper, 7);
  const auto has_reserved = [&](uint64_t entry, bool maps_large_page) {
    if (m.entry_bytes == 4) return maps_large_page && Bit(entry, 21);
    return Bit(entry, 51) || (!m.nx && Bit(entry, 63));
  };
  std::vector<uint64_t> used = {upper};
  if (!large) used.push_back(lower);
  bool user_address = true;
  bool writable = true;
  bool executable = true;
  for (size_t i = 0; i < used.size(); ++i) {
    if (!Bit(used[i], 0)) return fault;
    if (has_reserved(used[i], large && i == 0)) {
      fault.code |= 1 | 8;
      return fault;
    }
    user_address = user_address && Bit(used[i], 2);
    writable = writable && Bit(used[i], 1);
    executable = executable && !(nx_in_use && Bit(used[i], 63));
  }
  const bool key = KeyForbids(m, a, user_address, used.back());
  if (key || !MayAccess(m, a, user_address, writable, executable)) {
    fault.code |= 1 | (key ? 32 : 0);
    return fault;
  }
  Outcome done = {.allowed = true, .upper = upper | 1 << 5, .lower = lower};
  uint64_t& leaf = large ? done.upper : done.lower;
  leaf |= 1 << 5;
  if (write) leaf |= 1 << 6;
  done.may_write = writable && Bit(leaf, 6);
  done.gfn = kLowerAddress >> 12;
  if (large) {
    const uint64_t page = m.entry_bytes == 4 ? 4 << 20 : 2 << 20;
    done.gfn = (kLargeAddress + kAddress % page) >> 12;
  }
  return done;
}

class AccessMatrixTest : public ::testing::Test {
 protected:
  // The directory is at 0x3000, the page table at 0x5000. The tables above them
  // are at 0x1000 and 0x2000.
  void UseTables(WordSize size) {
    size_ = size;
    const uint64_t bytes = static_cast<uint64_t>(size);
    const bool four = size == WordSize::k4;
    upper_gpa_ = 0x3000 + (kAddress >> (four ? 22 : 21)) * bytes;
    lower_gpa_ = 0x5000 + (kAddress >> 12 & (four ? 1023 : 511)) * bytes;
  }

  // Compares one walk with `expected`; false if they differ.
  bool Agrees(const GuestWalker& walker, const GuestPageAccess& access,
              uint64_t upper, uint64_t lower, const Outcome& expected) {
    const GuestWalkResult walk =
        walker.Walk(memory_.words(), root_, kAddress, access);
    Outcome got = {.allowed = walk.translated(),
                   .upper = memory_.Get(upper_gpa_, size_),
                   .lower = memory_.Get(lower_gpa_, size_)};
    if (walk.translated()) {
      got.gfn = walk.gfn.value();
      got.may_write = walk.access.Has(kMayWrite);
    } else {
      got.code = walk.fault.kind == GuestFault::Kind::kEptMisconfiguration
                     ? kCodeOfMisconfiguration
                     : walk.fault.code;
    }
    if (got.upper != upper) memory_.Put(upper_gpa_, upper, size_);
    if (got.lower != lower) memory_.Put(lower_gpa_, lower, size_);
    ++compared_;
    if (got == expected) return true;
    ADD_FAILURE() << "entries 0x" << std::hex << upper << " 0x" << lower
                  << std::dec << ", " << ToString(access.kind) << ", privilege "
                  << static_cast<int>(access.privilege) << ", AC "
                  << access.rflags_ac << ", cpu role 0x" << std::hex
                  << walker.role().word() << "\nis       " << Describe(got)
                  << "\nshall be " << Describe(expected);
    return false;
  }

  GuestMemory memory_;
  GuestRoot root_;
  WordSize size_ = WordSize::k8;
  uint64_t upper_gpa_ = 0;
  uint64_t lower_gpa_ = 0;
  uint64_t compared_ = 0;
};

// Every value whose set bits are among `bits`.
std::vector<uint64_t> Combinations(const std::vector<int>& bits) {
  std::vector<uint64_t> values = {0};
  for (const int bit : bits) {
    const size_t count = values.size();
    for (size_t i = 0; i < count; ++i) {
      values.push_back(values[i] | uint64_t{1} << bit);
    }
  }
  return values;
}

std::vector<GuestPageAccess> AllAccesses() {
  std::vector<GuestPageAccess> all;
  for (const AccessKind kind : kKinds) {
    all.push_back({.kind = kind, .privilege = Privilege::kUser});
    for (const bool ac : {false, true}) {
      all.push_back(
          {.kind = kind, .privilege = Privilege::kSupervisor, .rflags_ac = ac});
    }
    all.push_back({.kind = kind,
                   .privilege = Privilege::kImplicitSupervisor,
                   .rflags_ac = true});
  }
  return all;
}

enum class Mode { kTwoLevel, kPae, kFourLevel };

class LegacyMatrixTest : public AccessMatrixTest,
                         public ::testing::WithParamInterface<Mode> {
 protected:
  void SetUp() override {
    UseTables(four_byte() ? WordSize::k4 : WordSize::k8);
    switch (GetParam()) {
      case Mode::kTwoLevel:
        root_.table = Gfn(3);
        break;
      case Mode::kPae:
        root_.pdptes[0] = 0x3001;
        break;
      case Mode::kFourLevel:
        root_.table = Gfn(1);
        memory_.Put(0x1000, 0x2027);
        memory_.Put(0x2000, 0x3027);
        break;
    }
  }

  bool four_byte() const { return GetParam() == Mode::kTwoLevel; }

  GuestWalker WalkerFor(const Machine& m) const {
    GuestPagingState state;
    state.cr0 = kCr0Pg | (m.wp ? kCr0Wp : 0);
    state.cr4 = (four_byte() ? kCr4Pse : kCr4Pae) | (m.smep ? kCr4Smep : 0) |
                (m.smap ? kCr4Smap : 0) | (m.pke ? kCr4Pke : 0);
    state.efer =
        (GetParam() == Mode::kFourLevel ? kEferLma : 0) | (m.nx ? kEferNx : 0);
    return GuestWalker(GuestTables::kLegacy, LegacyCpuRole(state), {});
  }

  static uint64_t Upper(uint64_t bits) {
    return bits | (Bit(bits, 7) ? kLargeAddress : kUpperAddress);
  }
};

// The core of TST-40.
// Covers: SHD-46, SHD-47, SHD-48, SHD-49
TEST_P(LegacyMatrixTest, EveryAccessDoesWhatTheManualSays) {
  const std::vector<int> nx =
      four_byte() ? std::vector<int>{} : std::vector<int>{63};
  // Bit 51 is beyond the guest's physical addresses. Bit 21 is an address bit
  // inside of 4 MiB.
  const int reserved = four_byte() ? 21 : 51;
  std::vector<int> upper_bits = {0, 1, 2, 5, 6, 7, reserved};
  std::vector<int> lower_bits = {0, 1, 2, 5, 6};
  if (!four_byte()) lower_bits.push_back(reserved);
  upper_bits.insert(upper_bits.end(), nx.begin(), nx.end());
  lower_bits.insert(lower_bits.end(), nx.begin(), nx.end());
  const std::vector<uint64_t> uppers = Combinations(upper_bits);
  const std::vector<uint64_t> lowers = Combinations(lower_bits);
  const std::vector<GuestPageAccess> accesses = AllAccesses();

  std::vector<std::tuple<Machine, GuestWalker>> machines;
  for (int cr = 0; cr < 16; ++cr) {
    const Machine m = {.entry_bytes = four_byte() ? 4 : 8,
                       .wp = Bit(static_cast<uint64_t>(cr), 0),
                       .smep = Bit(static_cast<uint64_t>(cr), 1),
                       .smap = Bit(static_cast<uint64_t>(cr), 2),
                       .nx = Bit(static_cast<uint64_t>(cr), 3),
                       .pke = false};
    machines.emplace_back(m, WalkerFor(m));
  }
  for (const uint64_t upper_value : uppers) {
    const uint64_t upper = Upper(upper_value);
    // In an entry that leads to a table, bit 21 is a part of the table's
    // address.
    if (four_byte() && Bit(upper, 21) && !Bit(upper, 7)) continue;
    // The Dirty bit has no meaning in an entry that leads to a table.
    if (Bit(upper, 6) && !Bit(upper, 7)) continue;
    // A large page needs no table.
    const size_t count = Bit(upper, 7) ? 1 : lowers.size();
    memory_.Put(upper_gpa_, upper, size_);
    for (size_t i = 0; i < count; ++i) {
      const uint64_t lower = lowers[i] | kLowerAddress;
      memory_.Put(lower_gpa_, lower, size_);
      for (const auto& [m, walker] : machines) {
        for (const GuestPageAccess& access : accesses) {
          ASSERT_TRUE(Agrees(walker, access, upper, lower,
                             Legacy(m, access, upper, lower)));
        }
      }
    }
  }
  EXPECT_GT(compared_, 100'000u);
}

INSTANTIATE_TEST_SUITE_P(Modes, LegacyMatrixTest,
                         ::testing::Values(Mode::kTwoLevel, Mode::kPae,
                                           Mode::kFourLevel));

class KeyMatrixTest : public LegacyMatrixTest {};

// Covers: SHD-46, SHD-49
TEST_P(KeyMatrixTest, ProtectionKeysComeOnTopOfEverythingElse) {
  const uint64_t key = uint64_t{9} << 59;
  for (const uint64_t upper_value : Combinations({1, 2, 7, 63})) {
    const uint64_t upper = Upper(upper_value | 1 | key);
    memory_.Put(upper_gpa_, upper);
    for (const uint64_t lower_value : Combinations({1, 2, 60, 63})) {
      const uint64_t lower = (lower_value ^ key) | 1 | kLowerAddress;
      memory_.Put(lower_gpa_, lower);
      for (uint64_t cr = 0; cr < 16; ++cr) {
        const Machine m = {.entry_bytes = 8,
                           .wp = Bit(cr, 0),
                           .smep = Bit(cr, 1),
                           .smap = Bit(cr, 2),
                           .nx = true,
                           .pke = Bit(cr, 3)};
        const GuestWalker walker = WalkerFor(m);
        for (GuestPageAccess access : AllAccesses()) {
          for (uint32_t rights = 0; rights < 4; ++rights) {
            access.pkru = rights << (2 * 9);
            ASSERT_TRUE(Agrees(walker, access, upper, lower,
                               Legacy(m, access, upper, lower)));
          }
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Modes, KeyMatrixTest,
                         ::testing::Values(Mode::kFourLevel));

// --- EPT ---

// SDM vol. 3, 29.3.3 and 29.3.5, and table 28-7.
Outcome Ept(const EptOptions& o, const GuestPageAccess& a, uint64_t upper,
            uint64_t lower) {
  const bool large = Bit(upper, 7);
  std::vector<uint64_t> used = {upper};
  if (!large) used.push_back(lower);
  Outcome fault = {.upper = upper, .lower = lower};
  fault.code = uint64_t{1} << static_cast<int>(a.kind);
  bool readable = true, writable = true, exec = true, user_exec = true;
  for (const uint64_t entry : used) {
    const bool r = Bit(entry, 0), w = Bit(entry, 1), x = Bit(entry, 2);
    const bool xu = o.mode_based_exec && Bit(entry, 10);
    if (!r && !w && !x && !xu) return fault;
    if ((w && !r) || (!r && !o.exec_only) || Bit(entry, 51)) {
      fault.code = kCodeOfMisconfiguration;
      return fault;
    }
    readable = readable && r;
    writable = writable && w;
    exec = exec && x;
    user_exec = user_exec && xu;
  }
  const bool fetch_allowed =
      o.mode_based_exec && a.privilege == Privilege::kUser ? user_exec : exec;
  const bool allowed = a.kind == AccessKind::kRead    ? readable
                       : a.kind == AccessKind::kWrite ? writable
                                                      : fetch_allowed;
  if (!allowed) {
    fault.code |= (readable ? 1 << 3 : 0) | (writable ? 1 << 4 : 0) |
                  (exec ? 1 << 5 : 0) | (user_exec ? 1 << 6 : 0);
    return fault;
  }
  Outcome done = {.allowed = true, .upper = upper, .lower = lower};
  uint64_t& leaf = large ? done.upper : done.lower;
  done.may_write = writable;
  if (o.ad_bits) {
    done.upper |= 1 << 8;
    leaf |= 1 << 8;
    if (a.kind == AccessKind::kWrite) leaf |= 1 << 9;
    done.may_write = writable && Bit(leaf, 9);
  }
  done.gfn =
      (large ? kLargeAddress + kAddress % (2 << 20) : kLowerAddress) >> 12;
  return done;
}

// Covers: SHD-46, SHD-47, SHD-48, SHD-49
TEST_F(AccessMatrixTest, EveryAccessToL1sEptDoesWhatTheManualSays) {
  UseTables(WordSize::k8);
  root_.table = Gfn(1);
  memory_.Put(0x1000, 0x2000 | 0x507);  // all of R, W, X, XU, and Accessed
  memory_.Put(0x2000, 0x3000 | 0x507);
  for (const uint64_t upper_value : Combinations({0, 1, 2, 7, 8, 10, 51})) {
    const bool large = Bit(upper_value, 7);
    for (const uint64_t dirty : {0, large ? 1 << 9 : 0}) {
      const uint64_t upper =
          upper_value | dirty | (large ? kLargeAddress : kUpperAddress);
      memory_.Put(upper_gpa_, upper);
      for (const uint64_t lower_value : Combinations({0, 1, 2, 8, 9, 10})) {
        const uint64_t lower = lower_value | kLowerAddress;
        memory_.Put(lower_gpa_, lower);
        for (uint64_t options = 0; options < 8; ++options) {
          const EptOptions o = {.ad_bits = Bit(options, 0),
                                .exec_only = Bit(options, 1),
                                .mode_based_exec = Bit(options, 2)};
          const GuestWalker walker(GuestTables::kEpt, EptCpuRole(o, 0), {});
          for (const AccessKind kind : kKinds) {
            for (const Privilege privilege :
                 {Privilege::kUser, Privilege::kSupervisor}) {
              const GuestPageAccess access = {.kind = kind,
                                              .privilege = privilege};
              ASSERT_TRUE(Agrees(walker, access, upper, lower,
                                 Ept(o, access, upper, lower)));
            }
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace mmu::testing
