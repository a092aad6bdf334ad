// The order in which a round of a migration sends its pages.
//
// A page that is written after its clear is dirty again and will be sent twice.
// So what counts is the time from the clear of a page to the next seal. A round
// therefore goes through its pages in pieces, and clears each piece just before
// it is copied: cold memory at the beginning, where that time is long, and hot
// memory at the end, where it is short.

#ifndef CLIENT_SEND_ORDER_H_
#define CLIENT_SEND_ORDER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "client/mmu_client/dirty_log_stream.h"
#include "client/mmu_client/harvester.h"
#include "client/mmu_client/page_bitmap.h"

namespace mmud::client {

enum class SendOrder {
  kAscending,        // all pages are cleared at once, then copied by address
  kAscendingPieces,  // in pieces, by address
  kColdestFirst,     // in pieces, from the coldest memory to the hottest
};

// "ascending", "ascending-pieces", "coldest-first".
std::string ToString(SendOrder order);

// Memory that was used in `generation` last. A greater number is hotter. A
// value.
struct MemoryHeat {
  GpaRange range;
  int64_t generation = 0;
};

// Sizes of pieces. A value.
struct PieceSizes {
  // A piece has at most this fraction of the pages that are left: 1 / `share`.
  // So pieces become smaller towards the hot end, and their number grows only
  // with the logarithm of the memory's size.
  int64_t share = 16;
  // Nor is it worth a call to clear and one to read fewer pages than this.
  int64_t min_pages = 256;
};

// Divides `pages` into pieces. Each page is in exactly one piece. Memory that
// is not in `heat` is the coldest. Where ranges in `heat` overlap, the later
// one counts. Memory of the same heat ascends by address. The ranges of a piece
// are in this order too, so they do not ascend.
std::vector<HarvestPiece> ColdestFirst(const SlotBitmaps& pages,
                                       const std::vector<MemoryHeat>& heat,
                                       const PieceSizes& sizes);

}  // namespace mmud::client

#endif  // CLIENT_SEND_ORDER_H_
