"""French: a shop for kitchen and leisure, written to with "vous".

The forms of a noun are named after the masculine word that they would carry: `{item.mon}` is "mon" or "ma"
with the noun, `{item.du}` "du" or "de la", `{item.il}` the pronoun, `{item.e}` the ending of a participle.
"""

from sabir.demo.grammars import Register

_FORMS = ("le", "un", "mon", "ce", "du", "au", "il", "e")
_ARTICLES = {
    "le": "le {0}|un {0}|mon {0}|ce {0}|du {0}|au {0}|il|",
    "la": "la {0}|une {0}|ma {0}|cette {0}|de la {0}|à la {0}|elle|e",
}


def _declined(*nouns: str) -> tuple[str, ...]:
    """All forms of nouns given with their article, such as "la cafetière"."""
    return tuple(_ARTICLES[n[:2]].format(n[3:]) for n in nouns)


_POWER = _declined(
    "la cafetière", "le grille-pain", "le robot pâtissier", "la yaourtière", "le sèche-cheveux",
    "la machine à pain", "le mixeur plongeant", "la crêpière", "le radiateur d'appoint",
    "la guirlande lumineuse",
)  # fmt: skip
_CLOTH = _declined(
    "la veste de pluie", "le sac de voyage", "le manteau", "la housse de vélo", "le sac de couchage",
    "la doudoune", "la valise souple", "la sacoche", "le coupe-vent", "la tente",
)  # fmt: skip
_HOUSE = _declined(
    "la table basse", "le buffet", "la chaise longue", "le porte-manteau", "la bibliothèque",
    "le tabouret de bar", "la commode", "le lit pliant",
)  # fmt: skip

_SLOTS = {
    "item": _POWER + _CLOTH + _HOUSE,
    "item_power": _POWER,
    "item_cloth": _CLOTH,
    "item_house": _HOUSE,
    "day": ("lundi", "mardi", "mercredi", "jeudi", "vendredi", "samedi"),
    "when": (
        "la semaine dernière", "il y a quinze jours", "début mars", "pendant les soldes", "le 1# avril",
        "juste avant la Toussaint", "le mois dernier", "ce week-end", "à la rentrée", "avant-hier",
    ),
    "span": (
        "trois jours", "cinq jours", "une semaine", "dix jours", "quinze jours", "trois semaines",
        "plus d'un mois", "une dizaine de jours",
    ),
    "carrier": (
        "le livreur", "ColiVite", "votre transporteur", "le facteur", "le chauffeur",
        "le transporteur Hermine", "RelaisExpress", "le coursier",
    ),
    "town": (
        "Rennes", "Dijon", "Grenoble", "Perpignan", "Limoges", "Tours", "Lorient", "Besançon", "Nîmes",
        "Metz",
    ),
    "order": ("FR4####7", "n° 5#####", "C-77###", "n° 30###2", "2024/1####", "n° 8##-###"),
    "amount": (
        "1#,90 €", "2#,50 €", "34,9# €", "4#,00 €", "59,#0 €", "7#,95 €", "8# €", "129,#0 €",
        "6,#0 €",
    ),
    "price": ("9,#0 €", "1#,00 €", "2#,99 €", "6#,50 €"),
    "pay": (
        "par carte bleue", "par virement", "par chèque", "en trois fois", "avec un bon d'achat",
        "par prélèvement", "avec ma carte cadeau", "en ligne",
    ),
    "name": (
        "Mme Lefèvre", "Bastien Roux", "M. Delaunay", "Inès Benali", "Paul Garnier", "Odile Marchand",
        "Yann Le Goff", "Mme Picard", "Théo Vasseur", "Solange Blot",
    ),
    "who": (
        "à la gardienne", "à un voisin", "chez le boulanger", "au tabac du coin",
        "à un certain M. Petit", "à la mairie",
    ),
    "spot": (
        "devant le portail", "sur le palier", "à côté des poubelles", "dans le hall", "sous la pluie",
        "derrière la haie",
    ),
    "noise": (
        "un bruit de ferraille", "un sifflement aigu", "un ronflement", "un grésillement",
        "des claquements", "un drôle de bruit",
    ),
    "part": (
        "le couvercle", "la poignée", "un pied", "le côté gauche", "la charnière", "un des coins",
        "le fond", "la fixation",
    ),
    "device": (
        "sur mon téléphone", "sur l'ordinateur", "dans l'application", "sur la tablette",
        "sur votre site", "avec mon nouveau portable",
    ),
    "detail": (
        "mon nom de famille", "mon adresse mail", "mon numéro de portable", "ma date de naissance",
        "mon pseudo", "mon code postal",
    ),
}  # fmt: skip

_OPENINGS = (
    "Bonjour.",
    "Madame, Monsieur.",
    "Bonsoir.",
    "Bonjour à toute l'équipe !",
    "Rebonjour.",
    "J'ai commandé {item.un} chez vous {when}.",
    "Je vous écris au sujet de la commande {order}.",
    "Ma référence est la suivante : {order}.",
    "J'achète chez vous depuis 201# et je me permets de vous écrire.",
    "{when}, ma sœur m'a offert {item.un} de votre boutique.",
    "Dossier {order}, suite à mon appel.",
    "Votre standard n'a pas décroché {when}.",
    "J'aurais besoin d'un renseignement.",
    "Voici mon souci avec la commande {order}.",
    "Nous avons choisi {item.un} dans votre catalogue {when}.",
    "Pardon de vous déranger encore une fois.",
    "Je ne sais pas si je m'adresse au bon service.",
)

_CLOSINGS = (
    "Merci de me tenir au courant.",
    "Cordialement, {name}",
    "Que puis-je faire ?",
    "Merci d'avance pour votre réponse.",
    "J'attends un retour de votre part avant {day}.",
    "Franchement, ce n'est pas sérieux.",
    "Sans réponse, je saisirai la répression des fraudes.",
    "Pouvez-vous regarder cela de près ?",
    "Bien à vous, {name}",
    "Je compte sur vous.",
    "Quelle déception.",
    "Vous pouvez me rappeler après 18 heures.",
    "Je commence à perdre patience.",
    "Bonne journée, {name}",
    "Il s'agit sans doute d'une erreur.",
    "Que me proposez-vous ?",
    "Dans l'attente de vous lire.",
)

_ASIDES = {
    "delivery": (
        "Vos colis sont toujours arrivés à l'heure.",
        "Rien à redire sur la livraison.",
        "Le livreur a été charmant, soit dit en passant.",
        "L'expédition a été rapide, comme d'habitude.",
        "Je fais toujours livrer au bureau.",
        "Le transporteur n'y est pour rien.",
        "Le carton est même venu en avance.",
        "Ce n'est pas une question de délai d'envoi.",
    ),
    "payment": (
        "J'ai réglé aussitôt {pay}.",
        "La facture est payée, bien entendu.",
        "Les {amount} ont bien été débités {when}, aucun souci là-dessus.",
        "Je ne demande pas de remboursement pour l'instant.",
        "J'ai le reçu de {amount} sous les yeux.",
        "Le prix me convient tout à fait.",
        "Le paiement {pay} est passé sans problème.",
        "Vous avez déjà reçu mon argent.",
    ),
    "defect": (
        "Rien n'est cassé, heureusement.",
        "L'ancien modèle était en panne, d'où mon achat.",
        "La qualité de vos articles m'a toujours plu.",
        "Votre atelier de réparation m'avait bien rendu service l'an passé.",
        "La garantie n'est pas en cause ici.",
        "Le précédent marche encore comme au premier jour.",
        "Je n'ai jamais eu d'article abîmé chez vous.",
        "L'ancien s'est cassé au bout de dix ans, c'est normal.",
    ),
    "account": (
        "Je vois la commande dans mon espace client.",
        "J'arrive à me connecter normalement.",
        "Vous trouverez mes coordonnées dans mon profil.",
        "Mon compte existe depuis 201#.",
        "Mon mot de passe et mon identifiant n'ont pas changé.",
        "J'ai commandé en invité, sans créer de compte.",
        "Mon inscription est au nom de {name}, si besoin.",
        "J'ai déjà vérifié dans l'application.",
    ),
}

_CORES = {
    "delivery": (
        "{item.mon} devait arriver {day} et je n'ai toujours rien vu venir.",
        "Le suivi affiche « en cours d'acheminement » depuis {span}, sans aucun changement.",
        "Il paraît que le paquet a été remis {who}, mais personne n'est au courant.",
        "D'après le site, mon colis dort à {town} depuis {span}.",
        "Toute la journée de {day} à attendre pour rien : ni camion ni avis de passage.",
        "Où est passé{item.e} {item.mon} ? Vous l'avez fait partir il y a {span}.",
        "On a laissé le carton {spot}, tout était trempé.",
        "Quand comptez-vous expédier la commande {order} ? C'était promis pour {day}.",
        "La marchandise a été déposée chez des inconnus à {town}.",
        "Un seul des deux cartons est là ; celui {item.du} manque.",
        "J'ai payé {pay} il y a {span} et je n'ai encore rien reçu.",
        "Le point relais affirme ne rien avoir pour moi malgré votre message.",
        "Serait-il possible d'envoyer {item.le} à mon travail, à {town}, plutôt qu'à la maison ?",
        "Je m'absente à partir de {day} ; pouvez-vous retarder l'envoi ?",
        "Le numéro de suivi de {order} est inconnu chez le transporteur.",
        "On me dit que j'ai signé le bon de réception, or je n'étais pas chez moi.",
        "Combien de temps faut-il pour un envoi vers {town} ? J'attends depuis {span}.",
        "Après trois passages à la mauvaise porte, mon paquet vous est renvoyé.",
        "Mon envoi fait la navette entre {town} et l'entrepôt depuis {span}.",
        "Vous avez expédié à mon ancienne adresse de {town} alors que j'avais donné la nouvelle.",
        "La douane retient ma commande depuis {span} et j'ignore quel papier manque.",
        "{item.le} devait être le cadeau d'anniversaire de mon père {day}, ce sera trop tard.",
        "La consigne automatique était vide quand j'ai tapé le code de retrait.",
        "On m'avait annoncé un passage entre huit heures et midi {day}, personne n'est venu.",
        "{carrier} est passé devant chez nous {day} sans s'arrêter.",
        "Quelqu'un a dû voler le colis abandonné {spot}.",
        "Puis-je recevoir {item.le} avant {day} ? Nous déménageons ensuite.",
        "La date d'arrivée vient encore d'être repoussée, cette fois de deux semaines.",
    ),
    "payment": (
        "Vous m'avez prélevé {amount} deux fois pour la même commande.",
        "J'ai renvoyé {item.le} il y a {span} et le remboursement n'est pas sur mon compte bancaire.",
        "La facture indique {amount} alors que l'offre était à {price}.",
        "Ma carte est refusée à la caisse, pourtant elle est approvisionnée.",
        "Mon bon de {amount} n'a pas été déduit du total.",
        "Pourquoi me compter des frais de port, si c'est gratuit dès {amount} ?",
        "Je reçois une relance pour {amount} que j'ai réglés il y a {span}.",
        "Il me faudrait une facture avec la TVA pour {order}.",
        "Mon relevé montre un débit de {amount} dont j'ignore la raison.",
        "On m'avait promis un avoir de {amount}, je ne vois rien venir.",
        "J'aimerais régler {item.le} en plusieurs mensualités.",
        "Le prélèvement de {amount} a été présenté à la mauvaise date.",
        "Un seul article est arrivé {day}, mais on m'en facture deux.",
        "J'ai annulé tout de suite et vous avez quand même débité ma carte.",
        "Votre avoir est inférieur de {amount} à ce que j'ai versé.",
        "Un huissier me réclame {amount}, alors que {order} est soldée.",
        "La promotion n'a pas été prise en compte : j'ai payé plein tarif, soit {amount}.",
        "Acceptez-vous un règlement {pay} pour {order} ?",
        "Mon virement de {amount} est parti {day} et vous le dites toujours impayé.",
        "L'acompte versé pour {item.le} n'apparaît pas sur la note finale.",
        "Le code de réduction de votre dépliant est signalé comme périmé dans le panier.",
        "Merci de corriger la raison sociale sur la facture, notre comptable la refuse.",
        "Il y a {amount} de trop sur ma note, je voudrais récupérer la différence.",
        "Le solde de ma carte cadeau est à zéro sans que je l'aie utilisée.",
        "La troisième échéance a été encaissée avant la deuxième.",
        "Ma banque me demande de valider {amount} en boucle, puis tout échoue.",
        "Quand reverrai-je l'argent versé pour {item.le} ? Le retour date de {day}.",
        "Pourquoi réclamez-vous {amount} de plus que le devis ?",
    ),
    "defect": (
        "{item_power.le} refuse de s'allumer, quelle que soit la prise.",
        "Après {span}, {item_power.le} a rendu l'âme.",
        "{item_power.mon} fait {noise} dès que ça chauffe.",
        "Au déballage {item_house.du}, j'ai trouvé {part} en miettes.",
        "La fermeture {item_cloth.du} s'est coincée dès le premier jour.",
        "{item_power.le} se coupe toutes les deux minutes sans raison.",
        "Une grosse rayure traverse le dessus {item_house.du}.",
        "Les coutures {item_cloth.du} ont lâché après un seul lavage.",
        "Le vernis {item_house.du} s'écaille déjà.",
        "De la fumée est sortie {item_power.du} {day}, j'ai tout débranché.",
        "Il manque des vis et la notice, impossible de monter {item_house.le}.",
        "{item_house.le} est bancal{item_house.e} et {part} ne tient pas.",
        "{item_cloth.le} devait résister à l'eau et tout passe au travers.",
        "Je prends une petite décharge chaque fois que je touche {item_power.le}.",
        "{item_cloth.le} a déteint sur le reste de ma lessive.",
        "En nettoyant {item_house.le}, j'ai vu {part} se détacher.",
        "La livraison était ponctuelle, mais {item_house.le} est arrivé{item_house.e} en morceaux.",
        "Le bouton {item_power.du} reste bloqué et aucun voyant ne s'allume.",
        "{item_power.le} a moins d'un mois et fait déjà {noise}.",
        "La doublure {item_cloth.du} s'est déchirée au premier usage.",
        "{item_house.le} est plein{item_house.e} de bosses et {part} bouge.",
        "{item_power.le} fait sauter les plombs de ma cuisine à chaque usage.",
        "Il y a des trous dans le tissu {item_cloth.du}, on voit le jour à travers.",
        "Le réglage {item_power.du} est visiblement en panne, {item_power.il} reste au minimum.",
        "Le bois {item_house.du} s'est fissuré en moins d'un mois.",
        "J'ai payé {amount} pour {item_power.un} qui ne marche plus après {span}.",
        "{item_cloth.le} sent le produit chimique et des fils pendent partout.",
        "Le câble {item_power.du} est dénudé et on aperçoit le cuivre.",
    ),
    "account": (
        "Impossible de me connecter, le site prétend que mon mot de passe est faux.",
        "Le lien pour réinitialiser mon mot de passe ne me parvient jamais.",
        "Je souhaite modifier {detail} dans mon profil.",
        "Veuillez supprimer mon espace client et toutes mes données.",
        "Après trois essais {device}, mon accès est bloqué.",
        "J'ai apparemment deux inscriptions, dont une avec d'anciennes coordonnées.",
        "Le code de sécurité reçu par SMS est rejeté à chaque fois.",
        "Quelqu'un de {town} s'est connecté à ma place et a changé {detail}.",
        "Comment ne plus recevoir la lettre d'information ? Le bouton ne fait rien {device}.",
        "Depuis la mise à jour de {day}, mon historique est vide.",
        "Je n'ai plus mon ancien portable, donc la double vérification m'arrête.",
        "À l'inscription {device}, on me répond que l'adresse est déjà prise.",
        "Je viens de me marier et je voudrais changer de nom dans mon profil.",
        "L'application me déconnecte toutes les cinq minutes.",
        "Mes points de fidélité ont disparu de ma page de membre.",
        "Quelle adresse mail avez-vous enregistrée pour moi ? Je m'appelle {name}.",
        "Je n'ai rien demandé et j'ai reçu {day} un message de bienvenue comme nouveau membre.",
        "Ma liste d'envies avec {item.le} a disparu {device}.",
        "Peut-on fusionner mes deux numéros de client ?",
        "Le formulaire refuse l'accent quand je saisis {detail}.",
        "Je veux retirer la carte et les coordonnées mémorisées, mais la case est grisée.",
        "Mon mari et moi voudrions deux identifiants au lieu d'un seul.",
        "Je reçois sans cesse des alertes de connexion suspecte depuis {town}.",
        "Le mail de confirmation de mon inscription se fait attendre depuis {span}.",
        "Merci de m'envoyer une copie des données personnelles que vous détenez, au nom de {name}.",
        "Votre système ne reconnaît plus mon identifiant, que j'utilise depuis des années.",
        "Depuis {day}, je tombe sur la page d'une autre personne {device}.",
        "On me demande sans fin d'accepter les nouvelles conditions et je n'entre jamais.",
    ),
}

PLAIN = Register(
    length=(40, 220),
    slots=_SLOTS,
    forms={"item": _FORMS},
    openings=_OPENINGS,
    closings=_CLOSINGS,
    asides=_ASIDES,
    cores=_CORES,
)

REGISTERS = {"plain": PLAIN}
