// ./dev campaign crash: lives of disk caches, cut off at thousands of moments.
#include "campaign/crash_history.h"

int main(int argc, char** argv) {
  return terrace::campaign::run_campaign(
      "crash", argc, argv, [](std::uint64_t seed, terrace::campaign::Figures& figures) {
        terrace::campaign::CrashHistory({.lives = 6, .writes = 40, .points = 600}, seed, figures)
            .run();
      });
}
