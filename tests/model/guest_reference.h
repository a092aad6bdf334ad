// The flat reference of a guest's translations: which page, with which rights,
// the guest's tables give to each page that it uses; and which earlier
// translations a vCPU may still use, because nothing has invalidated them
// since.
//
// Only the lowest two levels change: each region of a space has one entry of
// level 2, which is empty, maps a large page, or links a table of level 1. The
// levels above are made with the space.
//
// After a change, each vCPU may use the old or the new entry (SDM vol. 3,
// 4.10.2 and 29.4.2; APM vol. 2, 5.5), and it may have cached the two levels at
// different times. So what it may use is every combination of an entry of level
// 2 and an entry of level 1 that were there since the last invalidation.
// Nothing is cached from an entry that is not present (SDM vol. 3, 4.10.4.3),
// so such an entry is not remembered.

#ifndef TESTS_MODEL_GUEST_REFERENCE_H_
#define TESTS_MODEL_GUEST_REFERENCE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "tests/model/guest_format.h"
#include "tests/model/guest_layout.h"

namespace mmu::testing {

// An entry of level 1. A value.
struct ModelLeaf {
  bool present = false;
  uint64_t page = 0;
  Rights rights;

  friend bool operator==(const ModelLeaf&, const ModelLeaf&) = default;
};

// An entry of level 2. A value.
struct ModelLink {
  enum class Kind : uint8_t { kNone, kLarge, kTable } kind = Kind::kNone;
  uint64_t page = 0;  // the first of the large page, or that of the table
  Rights rights;

  friend bool operator==(const ModelLink&, const ModelLink&) = default;
};

// What a place translates to. A value.
struct ModelTranslation {
  bool present = false;
  uint64_t page = 0;
  Rights rights;
  uint64_t table = 0;  // the page with the leaf's table; 0: a large page
};

// Thread-compatible.
class GuestReference {
 public:
  GuestReference(const GuestFormat& format, int vcpus);

  const ModelLink& link(int space, int region) const {
    return links_[IndexOf(space, region)];
  }
  const ModelLeaf& leaf(uint64_t table, int index) const {
    return LeafAt(table, index);
  }
  ModelTranslation Current(const Place& place) const;

  // The vCPUs may use the old entry, too, from now on. REQUIRES: HasRoom for
  // all that these change.
  void SetLink(int space, int region, const ModelLink& link);
  void SetLeaf(uint64_t table, int index, const ModelLeaf& leaf);
  // Like SetLeaf, for a table that nothing links or caches.
  void InitLeaf(uint64_t table, int index, const ModelLeaf& leaf) {
    LeafAt(table, index) = leaf;
  }

  // The places that SetLeaf(table, index) changes: also those of regions that
  // were unlinked from the table, where some vCPU may still use it.
  std::vector<Place> PlacesOf(uint64_t table, int index) const;
  // Whether the place can remember one more change for this vCPU. If not,
  // invalidate it first.
  bool HasRoom(int vcpu, const Place& place) const {
    const Pending& p = pending_[IndexOf(vcpu, place)];
    return p.links.size() < kMaxPending && p.leafs.size() < kMaxPending;
  }
  // Whether the vCPU may only use the current translation.
  bool IsSettled(int vcpu, const Place& place) const {
    const Pending& p = pending_[IndexOf(vcpu, place)];
    return p.links.empty() && p.leafs.empty();
  }

  // The translations that the vCPU may use, the current one first.
  using Candidates = absl::InlinedVector<ModelTranslation, 8>;
  Candidates CandidatesOf(int vcpu, const Place& place) const;

  // From now on the vCPU uses the current translation: of this place, of all
  // places of the space.
  void Invalidated(int vcpu, const Place& place);
  void Invalidated(int vcpu, int space);

 private:
  static constexpr size_t kMaxPending = 3;

  struct OldLeaf {
    uint64_t table = 0;
    ModelLeaf leaf;
  };
  struct Pending {
    absl::InlinedVector<ModelLink, kMaxPending> links;
    absl::InlinedVector<OldLeaf, kMaxPending> leafs;
  };

  static size_t IndexOf(int space, int region) {
    return static_cast<size_t>(space * kRegions + region);
  }
  static size_t IndexOf(int vcpu, const Place& place) {
    return static_cast<size_t>(
        ((vcpu * kSpaces + place.space) * kRegions + place.region) *
            kPagesPerRegion +
        place.index);
  }
  ModelLeaf& LeafAt(uint64_t table, int index) {
    return leafs_[(table - kGuestBase) * kPagesPerRegion +
                  static_cast<uint64_t>(index)];
  }
  const ModelLeaf& LeafAt(uint64_t table, int index) const {
    return leafs_[(table - kGuestBase) * kPagesPerRegion +
                  static_cast<uint64_t>(index)];
  }
  ModelTranslation Combine(const ModelLink& link, const ModelLeaf& leaf,
                           int index) const;

  const GuestFormat format_;
  const int vcpus_;
  std::array<ModelLink, kSpaces * kRegions> links_;
  std::vector<ModelLeaf> leafs_;  // by page of the pool and index
  std::vector<Pending> pending_;  // by vCPU and place
};

}  // namespace mmu::testing

#endif  // TESTS_MODEL_GUEST_REFERENCE_H_
