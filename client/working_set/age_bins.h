// Fewer bins of age, for views that have no room for all.

#ifndef CLIENT_WORKING_SET_AGE_BINS_H_
#define CLIENT_WORKING_SET_AGE_BINS_H_

#include <cstddef>
#include <string>
#include <vector>

#include "client/working_set/picture.h"

namespace mmud::client {

// The same bins if there are at most `most` of them. Otherwise neighbours whose
// least ages lie between the same two of RoundAges() become one. REQUIRES: the
// youngest is the first.
std::vector<AgeBin> FoldBins(const std::vector<AgeBin>& bins, size_t most);

// "7", or "3-7" for a bin of several generations.
std::string GenerationsOf(const AgeBin& bin);

}  // namespace mmud::client

#endif  // CLIENT_WORKING_SET_AGE_BINS_H_
