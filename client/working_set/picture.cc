#include "client/working_set/picture.h"

#include <cstdint>

namespace mmud::client {

int64_t TrackedBytes(const WorkingSetPicture& picture) {
  int64_t bytes = picture.never_young_bytes;
  for (const AgeBin& bin : picture.bins) bytes += bin.size_bytes;
  return bytes;
}

int64_t GuestBytes(const WorkingSetPicture& picture) {
  int64_t bytes = 0;
  for (const HeatSlot& slot : picture.heat) bytes += slot.size_bytes;
  return bytes;
}

}  // namespace mmud::client
