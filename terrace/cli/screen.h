// The terminal while something is shown that changes: another screen in the place of what stood
// there, keys without Return. Whatever ends the program (^C, ^Z, a kill, an exception) leaves the
// terminal as it was; only SIGKILL cannot be helped.
// Threading: single-threaded; blocks the signals it waits for in the calling thread.
// Waits: wait_for(), up to its limit.
#pragma once

#include <termios.h>

#include <csignal>
#include <cstddef>
#include <memory>
#include <string>

#include "terrace/base/clock.h"
#include "terrace/base/file.h"
#include "terrace/base/status.h"

namespace terrace::cli {

class Screen {
 public:
  // Standard output is a terminal that can do this.
  [[nodiscard]] static bool is_possible();
  // Errors: kIo.
  [[nodiscard]] static Result<std::unique_ptr<Screen>> open();
  Screen(const Screen&) = delete;
  Screen& operator=(const Screen&) = delete;
  ~Screen();  // The terminal is as it was.

  [[nodiscard]] std::size_t rows() const;
  [[nodiscard]] std::size_t columns() const;
  // Lines, each ended, in the place of what is shown.
  void show(const std::string& text);
  // False: somebody wants it to end, by q, ^C, a signal, or by closing the terminal.
  [[nodiscard]] bool wait_for(Nanoseconds limit, const Clock& clock);
  // The signal that ended it, after which a program should end as if it had not caught it; 0 =
  // none, or ^C, which is how one ends it.
  [[nodiscard]] int ended_by() const { return ended_by_; }

 private:
  Screen() = default;
  void enter();
  void leave();
  void write(const std::string& bytes);
  // False: it is to end.
  [[nodiscard]] bool take_signal();
  [[nodiscard]] bool take_keys();

  UniqueFd signals_;
  sigset_t mask_before_{};
  termios modes_before_{};
  bool has_modes_ = false;  // Standard input is a terminal, too.
  bool has_keys_ = true;
  bool is_entered_ = false;
  bool is_gone_ = false;  // Nobody reads what is written.
  int ended_by_ = 0;
};

}  // namespace terrace::cli
