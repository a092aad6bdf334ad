// Finds the newest generation of a working set that has ended.

#ifndef CLIENT_WORKING_SET_NEWEST_ENDED_H_
#define CLIENT_WORKING_SET_NEWEST_ENDED_H_

#include "mmud/v1/aging_service.pb.h"

namespace mmud::client {

// Null if none has. It lives as long as `working_set` is not changed.
inline const v1::Generation* NewestEnded(const v1::WorkingSet& working_set) {
  for (const v1::Generation& generation : working_set.generations()) {
    if (generation.has_since_end()) return &generation;
  }
  return nullptr;
}

}  // namespace mmud::client

#endif  // CLIENT_WORKING_SET_NEWEST_ENDED_H_
