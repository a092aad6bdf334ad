// The layout of the tables that a guest of the model makes: its own (SDM
// vol. 3, 4.3 to 4.5) or those that L1 makes for L2 (SDM vol. 3, 29.3; APM
// vol. 2, 15.25).

#ifndef TESTS_MODEL_GUEST_FORMAT_H_
#define TESTS_MODEL_GUEST_FORMAT_H_

#include <cstdint>

#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/guest_paging/guest_entry.h"
#include "tests/model/model_config.h"

namespace mmu::testing {

// What an entry grants, or all entries of a path together. A value.
struct Rights {
  bool read = false;
  bool write = false;
  bool exec = false;
  bool user = false;

  friend bool operator==(const Rights&, const Rights&) = default;
  friend Rights operator&(const Rights& x, const Rights& y) {
    return {.read = x.read && y.read,
            .write = x.write && y.write,
            .exec = x.exec && y.exec,
            .user = x.user && y.user};
  }
};
inline constexpr Rights kFullRights = {
    .read = true, .write = true, .exec = true, .user = true};

// A value.
class GuestFormat {
 public:
  explicit GuestFormat(const ModelConfig& config)
      : ept_(config.vm.mmu == MmuMode::kNested &&
             config.vm.format == EntryFormat::kEpt),
        exec_only_(config.ept_exec_only) {
    using Mode = GuestPagingConfig::Mode;
    levels_ = config.paging == Mode::k32Bit    ? 2
              : config.paging == Mode::kPae    ? 3
              : config.paging == Mode::k4Level ? 4
                                               : 5;
    if (ept_) {
      accessed_ = config.ept_ad_bits ? guest_entry::kEptAccessed : 0;
      dirty_ = config.ept_ad_bits ? guest_entry::kEptDirty : 0;
    } else {
      accessed_ = guest_entry::kAccessed;
      dirty_ = guest_entry::kDirty;
    }
  }

  bool ept() const { return ept_; }
  int levels() const { return levels_; }
  // Page-directory-pointer entries: four, with P alone, kept by the processor.
  bool has_pdptes() const { return levels_ == 3; }
  bool has_nx() const { return !ept_ && levels_ > 2; }
  int entry_bytes() const { return levels_ == 2 ? 4 : 8; }
  int index_bits() const { return levels_ == 2 ? 10 : 9; }
  // The number of pages that an entry of level 2 covers.
  uint64_t large_pages() const { return uint64_t{1} << index_bits(); }
  uint64_t IndexOf(uint64_t page, int level) const {
    return page >> (index_bits() * (level - 1)) & (large_pages() - 1);
  }
  // The bits that the processor sets; 0 if it does not.
  uint64_t accessed() const { return accessed_; }
  uint64_t dirty() const { return dirty_; }

  // The rights nearest to `wanted` that an entry can express. EPT does not
  // know users; W needs R there, and so does X, unless entries may be
  // execute-only. Other entries always grant reads.
  Rights Possible(Rights wanted) const {
    if (ept_) {
      wanted.user = true;
      if (!wanted.exec || !exec_only_) wanted.read = true;
      if (!wanted.read) wanted.write = false;
    } else {
      wanted.read = true;
      if (!has_nx()) wanted.exec = true;
    }
    return wanted;
  }
  // An entry that maps the page, or the large page, at guest page `page`.
  // REQUIRES: `rights` are possible.
  uint64_t Leaf(uint64_t page, Rights rights, bool large) const {
    return page << kPageShift | BitsOf(rights) |
           (large ? guest_entry::kPageSize : 0) |
           (ept_ ? uint64_t{6} << guest_entry::kEptMemoryTypeShift : 0);
  }
  // An entry that leads to the table at guest page `page`.
  uint64_t Link(uint64_t page, Rights rights) const {
    return page << kPageShift | BitsOf(rights);
  }
  // PDPTEs have no rights.
  uint64_t Pdpte(uint64_t page) const {
    return page << kPageShift | guest_entry::kPresent;
  }

 private:
  uint64_t BitsOf(Rights rights) const {
    if (ept_) {
      return (rights.read ? guest_entry::kEptRead : 0) |
             (rights.write ? guest_entry::kEptWrite : 0) |
             (rights.exec ? guest_entry::kEptExec : 0);
    }
    return guest_entry::kPresent | (rights.write ? guest_entry::kWritable : 0) |
           (rights.user ? guest_entry::kUser : 0) |
           (rights.exec ? 0 : guest_entry::kNx);
  }

  bool ept_ = false;
  bool exec_only_ = false;
  int levels_ = 4;
  uint64_t accessed_ = 0;
  uint64_t dirty_ = 0;
};

}  // namespace mmu::testing

#endif  // TESTS_MODEL_GUEST_FORMAT_H_
