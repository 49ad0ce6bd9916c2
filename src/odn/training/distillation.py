"""Let a network learn from what another says of each image, beside the labels.

Source: Hinton et al., Distilling the Knowledge in a Neural Network, arXiv 1503.02531, section 2.
"""

import torch.nn.functional as F
from torch import Tensor


def distillation_loss(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """Return temperature² · KL(teacher ‖ student) of logits (N, K) softened by the temperature: mean over N, nats.

    No gradient reaches the teacher. The factor keeps gradients of the size that they have at temperature 1.
    """
    soft = F.log_softmax(student.float() / temperature, dim=1)
    taught = F.log_softmax(teacher.detach().float() / temperature, dim=1)
    return F.kl_div(soft, taught, reduction="batchmean", log_target=True) * temperature**2
