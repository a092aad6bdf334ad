// The pages of a memslot that a call names.

#ifndef SERVER_CONTROL_NAMED_PAGES_H_
#define SERVER_CONTROL_NAMED_PAGES_H_

#include <cstdint>
#include <vector>

namespace mmud {

// Pages count from the slot's start.
struct NamedPages {
  uint32_t slot = 0;
  uint64_t first_page = 0;     // a multiple of 64
  uint64_t page_count = 0;     // of the range
  std::vector<uint64_t> mask;  // bit 0 is first_page
};

}  // namespace mmud

#endif  // SERVER_CONTROL_NAMED_PAGES_H_
