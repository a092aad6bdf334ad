// The manual page of mmuctl.

#ifndef CLIENT_MMUCTL_MAN_PAGE_H_
#define CLIENT_MMUCTL_MAN_PAGE_H_

#include <string>

#include "CLI/CLI.hpp"

namespace mmud::client {

// mmuctl(1) in the language of groff's man macros, made from the command tree
// below `root`.
std::string ManPage(const CLI::App& root);

}  // namespace mmud::client

#endif  // CLIENT_MMUCTL_MAN_PAGE_H_
