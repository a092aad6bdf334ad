#include "client/mmu_client/owner_token.h"

#include <cstddef>
#include <cstring>
#include <random>
#include <string>

namespace mmud::client {

std::string NewOwnerToken() {
  thread_local std::random_device device;
  std::string token(kOwnerTokenBytes, '\0');
  static_assert(kOwnerTokenBytes % sizeof(std::random_device::result_type) ==
                0);
  for (size_t at = 0; at < token.size();
       at += sizeof(std::random_device::result_type)) {
    const std::random_device::result_type word = device();
    std::memcpy(&token[at], &word, sizeof(word));
  }
  return token;
}

}  // namespace mmud::client
