// What standard output is: a terminal, and one with colours?

#ifndef CLIENT_MMUCTL_SCREEN_H_
#define CLIENT_MMUCTL_SCREEN_H_

#include "client/mmuctl/context.h"

namespace mmud::client {

// Whether the command's output goes to a terminal.
bool WritesToTerminal(Context& context);

// Whether it may have colours: the terminal is not TERM=dumb, and NO_COLOR is
// unset or empty (https://no-color.org).
bool WritesColours(Context& context);

}  // namespace mmud::client

#endif  // CLIENT_MMUCTL_SCREEN_H_
