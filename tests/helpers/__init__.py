"""What tests share: checkpoints, servers, clients, records whose figures are known. Holds no test."""
