// Made by kgen: what verification runs on the device whatever the operator.
//
// dtypes     bf16, fp32
// arch       host
// compile    g++ -std=c++20 -O3 -march=native -shared -fPIC -x c++ kernel.hip -o kernel.so

