// Memslots in the order of a key, in chunks that several indexes share.
//
// Successive sets of memslots differ in a few slots out of tens of thousands
// (memory/memslot_set.h). So an index keeps its slots in chunks. A copy of an
// index shares all chunks with the original. A change of the copy replaces only
// the changed chunk, and the original stays as it is:
//
//   index   [ first key, chunk | first key, chunk | ... ]
//   chunk   [ slot | slot | ... ]        1 to kMaxChunk, ascending by key
//
// With n slots, a copy and a change cost about kMaxChunk + n / kMaxChunk steps.

#ifndef MMU_CORE_MEMORY_SLOT_INDEX_H_
#define MMU_CORE_MEMORY_SLOT_INDEX_H_

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <memory>
#include <utility>
#include <vector>

#include "mmu_core/base/check.h"
#include "mmu_core/memory/memslot.h"

namespace mmu {

// `Order` defines the entries and their order:
//
//   Entry                     const Memslot*, or a shared_ptr that owns it
//   Key                       ordered; no two slots have the same key
//   KeyOf(const Memslot&)
//   kHasBound                 whether FromBound is used; then also
//   Bound                     ordered
//   BoundOf(const Memslot&)
//
// Thread-compatible. Shared chunks are only read, so a copy may be changed and
// destroyed while other threads read the original. Copies are made and
// destroyed by one thread at a time.
template <typename Order>
class SlotIndex {
  struct Chunk;
  struct Place;

 public:
  using Entry = typename Order::Entry;
  using Key = typename Order::Key;
  using Bound = typename Order::Bound;

  static constexpr size_t kMaxChunk = 128;

  class Iterator {
   public:
    using iterator_category = std::forward_iterator_tag;
    using value_type = const Memslot*;
    using difference_type = std::ptrdiff_t;
    using pointer = const value_type*;
    using reference = value_type;

    Iterator() = default;
    const Memslot* operator*() const { return &*entry(); }
    const Entry& entry() const { return place_->chunk->slots[at_]; }
    Iterator& operator++() {
      if (++at_ == place_->chunk->slots.size()) {
        ++place_;
        at_ = 0;
      }
      return *this;
    }
    Iterator operator++(int) {
      const Iterator before = *this;
      ++*this;
      return before;
    }
    friend bool operator==(const Iterator&, const Iterator&) = default;

   private:
    friend class SlotIndex;
    Iterator(const Place* place, size_t at) : place_(place), at_(at) {}

    const Place* place_ = nullptr;
    size_t at_ = 0;
  };

  // Consecutive slots. Valid as long as the index is not changed.
  class Range {
   public:
    Range() = default;
    Range(Iterator begin, Iterator end) : begin_(begin), end_(end) {}
    Iterator begin() const { return begin_; }
    Iterator end() const { return end_; }
    bool empty() const { return begin_ == end_; }
    // Linear: counts the slots.
    size_t size() const {
      return static_cast<size_t>(std::distance(begin_, end_));
    }

   private:
    Iterator begin_;
    Iterator end_;
  };

  Iterator begin() const { return {places_.data(), 0}; }
  Iterator end() const { return {places_.data() + places_.size(), 0}; }
  Range all() const { return {begin(), end()}; }

  // The last slot whose key is at most `key`; end() if there is none.
  Iterator Floor(const Key& key) const {
    const size_t place = PlaceAfter(key);
    if (place == 0) return end();
    return {&places_[place - 1], EntryAfter(place - 1, key) - 1};
  }
  // The first slot whose key is at least `key`; end() if there is none.
  Iterator LowerBound(const Key& key) const {
    Iterator it = Floor(key);
    if (it == end()) return begin();  // all are above
    if (Order::KeyOf(**it) != key) ++it;
    return it;
  }
  // The slot with this key; end() if there is none.
  Iterator Find(const Key& key) const {
    const Iterator it = Floor(key);
    return it != end() && Order::KeyOf(**it) == key ? it : end();
  }

  // The slots from the first chunk on that contains a slot whose bound is above
  // `bound`. No earlier chunk contains one.
  Range FromBound(const Bound& bound) const {
    static_assert(Order::kHasBound);
    const auto place =
        std::partition_point(places_.begin(), places_.end(),
                             [&](const Place& p) { return p.max <= bound; });
    return {{places_.data() + (place - places_.begin()), 0}, end()};
  }

  // REQUIRES: the index has no slot with the same key.
  void Insert(Entry entry) {
    const Key key = Order::KeyOf(*entry);
    if (places_.empty()) {
      places_.push_back({key, std::make_shared<Chunk>(), Bound(), Bound()});
      places_[0].chunk->slots.push_back(std::move(entry));
      return UpdateFrom(0);
    }
    const size_t after = PlaceAfter(key);
    size_t place = after == 0 ? 0 : after - 1;
    size_t at = EntryAfter(place, key);
    MMU_CHECK(at == 0 ||
              Order::KeyOf(*places_[place].chunk->slots[at - 1]) != key);
    const size_t changed = place;
    if (places_[place].chunk->slots.size() == kMaxChunk) {
      // A caller that adds slots in ascending order fills each chunk.
      const size_t keep =
          at == kMaxChunk && place + 1 == places_.size() ? at : kMaxChunk / 2;
      Split(place, keep);
      if (at >= keep) {
        ++place;
        at -= keep;
      }
    }
    std::vector<Entry>& slots = Own(place).slots;
    slots.insert(slots.begin() + static_cast<std::ptrdiff_t>(at),
                 std::move(entry));
    UpdateFrom(changed);
  }

  // Replaces the slot that has the key of `entry`. REQUIRES: there is one.
  void Replace(Entry entry) {
    const Key key = Order::KeyOf(*entry);
    const size_t place = PlaceAfter(key) - 1;
    Entry& old = Own(place).slots[EntryAfter(place, key) - 1];
    MMU_CHECK(Order::KeyOf(*old) == key);
    old = std::move(entry);
    UpdateFrom(place);
  }

  // REQUIRES: the index has a slot with this key.
  void Erase(const Key& key) {
    size_t place = PlaceAfter(key) - 1;
    const size_t at = EntryAfter(place, key) - 1;
    std::vector<Entry>& slots = Own(place).slots;
    MMU_CHECK(Order::KeyOf(*slots[at]) == key);
    slots.erase(slots.begin() + static_cast<std::ptrdiff_t>(at));
    if (place > 0 && SizeOf(place - 1) + SizeOf(place) <= kMaxChunk / 2) {
      --place;
    }
    // Two small neighbouring chunks become one, so that the number of chunks
    // stays close to what the slots need.
    if (place + 1 < places_.size() &&
        SizeOf(place) + SizeOf(place + 1) <= kMaxChunk / 2) {
      const std::vector<Entry>& next = places_[place + 1].chunk->slots;
      std::vector<Entry>& into = Own(place).slots;
      into.insert(into.end(), next.begin(), next.end());
      places_.erase(places_.begin() + static_cast<std::ptrdiff_t>(place) + 1);
    }
    if (SizeOf(place) == 0) {
      places_.erase(places_.begin() + static_cast<std::ptrdiff_t>(place));
    }
    UpdateFrom(place);
  }

 private:
  struct Chunk {
    std::vector<Entry> slots;
  };
  struct Place {
    Key first;
    // Changed only while this index is the chunk's only owner.
    std::shared_ptr<Chunk> chunk;
    Bound chunk_max;  // the largest bound in the chunk
    Bound max;        // over this chunk and all before it
  };

  size_t SizeOf(size_t place) const {
    return places_[place].chunk->slots.size();
  }

  // The first place whose first key is above `key`.
  size_t PlaceAfter(const Key& key) const {
    return static_cast<size_t>(
        std::partition_point(places_.begin(), places_.end(),
                             [&](const Place& p) { return p.first <= key; }) -
        places_.begin());
  }
  // The first entry of the chunk whose key is above `key`.
  size_t EntryAfter(size_t place, const Key& key) const {
    const std::vector<Entry>& slots = places_[place].chunk->slots;
    return static_cast<size_t>(std::partition_point(slots.begin(), slots.end(),
                                                    [&](const Entry& e) {
                                                      return Order::KeyOf(*e) <=
                                                             key;
                                                    }) -
                               slots.begin());
  }
  Chunk& Own(size_t place) {
    std::shared_ptr<Chunk>& chunk = places_[place].chunk;
    if (chunk.use_count() != 1) {
      auto copy = std::make_shared<Chunk>();
      copy->slots.reserve(chunk->slots.size() + 1);
      copy->slots = chunk->slots;
      chunk = std::move(copy);
    }
    return *chunk;
  }
  // Keeps the first `keep` slots in the chunk; the others get a new chunk
  // behind it.
  void Split(size_t place, size_t keep) {
    auto upper = std::make_shared<Chunk>();
    const auto middle = static_cast<std::ptrdiff_t>(keep);
    if (keep < kMaxChunk) {
      std::vector<Entry>& slots = Own(place).slots;
      upper->slots.assign(slots.begin() + middle, slots.end());
      slots.erase(slots.begin() + middle, slots.end());
    }
    places_.insert(places_.begin() + static_cast<std::ptrdiff_t>(place) + 1,
                   {places_[place].first, std::move(upper), Bound(), Bound()});
  }
  // Updates first key and chunk bound of the two places that a change can
  // concern, and the largest bounds of all places from there on.
  void UpdateFrom(size_t place) {
    for (size_t i = place; i < std::min(place + 2, places_.size()); ++i) {
      const std::vector<Entry>& slots = places_[i].chunk->slots;
      places_[i].first = Order::KeyOf(*slots.front());
      if constexpr (Order::kHasBound) {
        Bound max = Bound();
        for (const Entry& slot : slots) {
          max = std::max(max, Order::BoundOf(*slot));
        }
        places_[i].chunk_max = max;
      }
    }
    if constexpr (Order::kHasBound) {
      Bound max = place == 0 ? Bound() : places_[place - 1].max;
      for (size_t i = place; i < places_.size(); ++i) {
        max = std::max(max, places_[i].chunk_max);
        places_[i].max = max;
      }
    }
  }

  std::vector<Place> places_;
};

}  // namespace mmu

#endif  // MMU_CORE_MEMORY_SLOT_INDEX_H_
