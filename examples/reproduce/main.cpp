#include "reproduce.hpp"

int main(int argc, char** argv) { return reproduce::run(argc, argv); }
