"""The countries of the world: ISO 3166-1 codes, English names, and the region of the World Health Organization each belongs to.

Codes as of ISO 3166-1:2020 and its newsletters to 2025, with XK for Kosovo, which ISO leaves to its users. Regions as of the World Health
Assembly of May 2025, which moved Indonesia to the Western Pacific. Populations above 50 million in mid-2024: United Nations, World
Population Prospects 2024.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from dataclasses import dataclass

REGIONS = {
    'AFR': 'Africa',
    'AMR': 'Americas',
    'SEAR': 'South-East Asia',
    'EUR': 'Europe',
    'EMR': 'Eastern Mediterranean',
    'WPR': 'Western Pacific',
    '': 'in no WHO region',
}
# Region to its member states.
_MEMBERS = {
    'AFR': (
        'DZ DZA Algeria; AO AGO Angola; BJ BEN Benin; BW BWA Botswana; BF BFA Burkina Faso; BI BDI Burundi; CV CPV Cabo Verde; '
        "CM CMR Cameroon; CF CAF Central African Republic; TD TCD Chad; KM COM Comoros; CG COG Congo; CI CIV Côte d'Ivoire; "
        'CD COD DR Congo; GQ GNQ Equatorial Guinea; ER ERI Eritrea; SZ SWZ Eswatini; ET ETH Ethiopia; GA GAB Gabon; GM GMB Gambia; '
        'GH GHA Ghana; GN GIN Guinea; GW GNB Guinea-Bissau; KE KEN Kenya; LS LSO Lesotho; LR LBR Liberia; MG MDG Madagascar; '
        'MW MWI Malawi; ML MLI Mali; MR MRT Mauritania; MU MUS Mauritius; MZ MOZ Mozambique; NA NAM Namibia; NE NER Niger; '
        'NG NGA Nigeria; RW RWA Rwanda; SN SEN Senegal; SC SYC Seychelles; SL SLE Sierra Leone; ZA ZAF South Africa; '
        'SS SSD South Sudan; ST STP São Tomé and Príncipe; TZ TZA Tanzania; TG TGO Togo; UG UGA Uganda; ZM ZMB Zambia; '
        'ZW ZWE Zimbabwe'
    ),
    'AMR': (
        'AG ATG Antigua and Barbuda; AR ARG Argentina; BS BHS Bahamas; BB BRB Barbados; BZ BLZ Belize; BO BOL Bolivia; '
        'BR BRA Brazil; CA CAN Canada; CL CHL Chile; CO COL Colombia; CR CRI Costa Rica; CU CUB Cuba; DM DMA Dominica; '
        'DO DOM Dominican Republic; EC ECU Ecuador; SV SLV El Salvador; GD GRD Grenada; GT GTM Guatemala; GY GUY Guyana; '
        'HT HTI Haiti; HN HND Honduras; JM JAM Jamaica; MX MEX Mexico; NI NIC Nicaragua; PA PAN Panama; PY PRY Paraguay; '
        'PE PER Peru; KN KNA Saint Kitts and Nevis; LC LCA Saint Lucia; VC VCT Saint Vincent and Grenadines; SR SUR Suriname; '
        'TT TTO Trinidad and Tobago; US USA United States; UY URY Uruguay; VE VEN Venezuela'
    ),
    'SEAR': (
        'BD BGD Bangladesh; BT BTN Bhutan; IN IND India; MV MDV Maldives; MM MMR Myanmar; NP NPL Nepal; KP PRK North Korea; '
        'LK LKA Sri Lanka; TH THA Thailand; TL TLS Timor-Leste'
    ),
    'EUR': (
        'AL ALB Albania; AD AND Andorra; AM ARM Armenia; AT AUT Austria; AZ AZE Azerbaijan; BY BLR Belarus; BE BEL Belgium; '
        'BA BIH Bosnia and Herzegovina; BG BGR Bulgaria; HR HRV Croatia; CY CYP Cyprus; CZ CZE Czechia; DK DNK Denmark; '
        'EE EST Estonia; FI FIN Finland; FR FRA France; GE GEO Georgia; DE DEU Germany; GR GRC Greece; HU HUN Hungary; '
        'IS ISL Iceland; IE IRL Ireland; IL ISR Israel; IT ITA Italy; KZ KAZ Kazakhstan; KG KGZ Kyrgyzstan; LV LVA Latvia; '
        'LT LTU Lithuania; LU LUX Luxembourg; MT MLT Malta; MD MDA Moldova; MC MCO Monaco; ME MNE Montenegro; NL NLD Netherlands; '
        'MK MKD North Macedonia; NO NOR Norway; PL POL Poland; PT PRT Portugal; RO ROU Romania; RU RUS Russia; SM SMR San Marino; '
        'RS SRB Serbia; SK SVK Slovakia; SI SVN Slovenia; ES ESP Spain; SE SWE Sweden; CH CHE Switzerland; TJ TJK Tajikistan; '
        'TM TKM Turkmenistan; TR TUR Türkiye; UA UKR Ukraine; GB GBR United Kingdom; UZ UZB Uzbekistan'
    ),
    'EMR': (
        'AF AFG Afghanistan; BH BHR Bahrain; DJ DJI Djibouti; EG EGY Egypt; IR IRN Iran; IQ IRQ Iraq; JO JOR Jordan; '
        'KW KWT Kuwait; LB LBN Lebanon; LY LBY Libya; MA MAR Morocco; OM OMN Oman; PK PAK Pakistan; QA QAT Qatar; '
        'SA SAU Saudi Arabia; SO SOM Somalia; SD SDN Sudan; SY SYR Syria; TN TUN Tunisia; AE ARE United Arab Emirates; YE YEM Yemen'
    ),
    'WPR': (
        'AU AUS Australia; BN BRN Brunei; KH KHM Cambodia; CN CHN China; CK COK Cook Islands; FJ FJI Fiji; ID IDN Indonesia; '
        'JP JPN Japan; KI KIR Kiribati; LA LAO Laos; MY MYS Malaysia; MH MHL Marshall Islands; FM FSM Micronesia; MN MNG Mongolia; '
        'NR NRU Nauru; NZ NZL New Zealand; NU NIU Niue; PW PLW Palau; PG PNG Papua New Guinea; PH PHL Philippines; WS WSM Samoa; '
        'SG SGP Singapore; SB SLB Solomon Islands; KR KOR South Korea; TO TON Tonga; TV TUV Tuvalu; VU VUT Vanuatu; VN VNM Viet Nam'
    ),
}
# Associate members, observers, and areas whose health the region's office reports; '' for the rest.
_OTHERS = {
    'AMR': (
        'AI AIA Anguilla; AW ABW Aruba; BM BMU Bermuda; BQ BES Bonaire, Sint Eustatius and Saba; VG VGB British Virgin Islands; '
        'KY CYM Cayman Islands; CW CUW Curaçao; GF GUF French Guiana; GP GLP Guadeloupe; MQ MTQ Martinique; MS MSR Montserrat; '
        'PR PRI Puerto Rico; SX SXM Sint Maarten; BL BLM Saint Barthélemy; MF MAF Saint Martin; TC TCA Turks and Caicos Islands; '
        'VI VIR U.S. Virgin Islands'
    ),
    'EMR': 'PS PSE Palestine',
    'WPR': (
        'AS ASM American Samoa; PF PYF French Polynesia; GU GUM Guam; HK HKG Hong Kong; MO MAC Macao; NC NCL New Caledonia; '
        'MP MNP Northern Mariana Islands; PN PCN Pitcairn Islands; TK TKL Tokelau; WF WLF Wallis and Futuna'
    ),
    '': (
        'AX ALA Åland Islands; AQ ATA Antarctica; BV BVT Bouvet Island; IO IOT British Indian Ocean Territory; '
        'CX CXR Christmas Island; CC CCK Cocos (Keeling) Islands; FK FLK Falkland Islands; FO FRO Faroe Islands; '
        'TF ATF French Southern Territories; GI GIB Gibraltar; GL GRL Greenland; GG GGY Guernsey; '
        'HM HMD Heard and McDonald Islands; IM IMN Isle of Man; JE JEY Jersey; LI LIE Liechtenstein; YT MYT Mayotte; '
        'NF NFK Norfolk Island; RE REU Réunion; GS SGS South Georgia and South Sandwich Islands; SH SHN Saint Helena; '
        'PM SPM Saint Pierre and Miquelon; SJ SJM Svalbard and Jan Mayen; TW TWN Taiwan; UM UMI U.S. Outlying Islands; '
        'VA VAT Vatican City; EH ESH Western Sahara; XK XKX Kosovo'
    ),
}
_POPULOUS = frozenset(
    'BD BR CD CN CO DE EG ET FR GB ID IN IR IT JP KE KR MM MX NG PH PK RU SD TH TR TZ UG US VN ZA'.split()
)
# Other words for them; none that could mean two, such as Korea.
_WORDS = {
    'AE': 'uae, emirates',
    'AT': 'osterreich',
    'BA': 'bosnia, bosnia herzegovina',
    'BE': 'belgie, belgique, belgien',
    'BN': 'brunei darussalam',
    'BQ': 'bonaire, caribbean netherlands, bonaire saint eustatius and saba',
    'BR': 'brasil',
    'CC': 'cocos islands, keeling islands',
    'CD': 'drc, congo kinshasa, democratic republic of congo, congo democratic republic of, congo dr, congo dem rep, zaire',
    'CG': 'congo brazzaville, congo republic, congo rep',
    'CH': 'schweiz, suisse, svizzera',
    'CI': 'ivory coast',
    'CN': 'prc, pr china, mainland china, china mainland, 中国',
    'CV': 'cape verde',
    'CZ': 'czech republic',
    'DE': 'deutschland',
    'DK': 'danmark',
    'EG': 'egypt arab rep',
    'ES': 'espana',
    'FI': 'suomi',
    'FK': 'falkland islands malvinas, malvinas',
    'FM': 'micronesia fed states, micronesia fed sts',
    'FO': 'faeroe islands',
    'GB': 'uk, great britain, britain, england, scotland, wales, northern ireland, united kingdom of great britain and northern ireland',
    'GR': 'hellas, hellenic republic',
    'GS': 'south georgia, south georgia and south sandwich isl',
    'HK': 'hong kong sar, hong kong sar china, hong kong china, hongkong, china hong kong, china hong kong sar, '
    'hong kong special administrative region of china',
    'HM': 'heard island and mcdonald islands',
    'HU': 'magyarorszag',
    'IN': 'bharat',
    'IR': 'iran islamic rep',
    'IT': 'italia',
    'JP': '日本, nippon',
    'KG': 'kyrgyz republic',
    'KN': 'saint kitts',
    'KP': 'dprk, korea north, democratic peoples republic of korea, korea democratic peoples republic of, korea dem peoples rep',
    'KR': 'korea south, republic of korea, korea republic of, korea rep, rok, 대한민국, 한국',
    'LA': 'lao, lao pdr, lao peoples democratic republic',
    'MF': 'saint martin french part',
    'MK': 'macedonia, former yugoslav republic of macedonia, fyrom, macedonia fyr',
    'MM': 'burma, myanmar burma',
    'MO': 'macau, macao sar, macao sar china, macau sar, china macao, china macao sar, macao special administrative region of china',
    'MX': 'united mexican states',
    'NL': 'holland, nederland',
    'NO': 'norge',
    'PL': 'polska',
    'PN': 'pitcairn',
    'PS': 'palestinian territories, palestinian territory, occupied palestinian territory, '
    'west bank and gaza, gaza, west bank, palestinian territory occupied',
    'RU': 'russian federation',
    'SA': 'ksa, saudi',
    'SE': 'sverige',
    'SH': 'saint helena ascension and tristan da cunha',
    'SJ': 'svalbard',
    'SK': 'slovak republic',
    'ST': 'sao tome',
    'SX': 'sint maarten dutch part',
    'SY': 'syrian arab republic',
    'SZ': 'swaziland',
    'TL': 'east timor',
    'TR': 'turkey',
    'TT': 'trinidad, tobago',
    'TW': 'republic of china, china republic of, taiwan province of china, taiwan china, taiwan roc, chinese taipei, 台灣, 臺灣, 台湾',
    'UA': 'ukrayina',
    'UM': 'united states minor outlying islands, us outlying islands',
    'US': 'usa, us, america, united states of america',
    'VA': 'holy see, vatican, holy see vatican city state, vatican city state',
    'VC': 'saint vincent, saint vincent and grenadines',
    'VE': 'venezuela rb',
    'VG': 'virgin islands british',
    'VI': 'us virgin islands, virgin islands us, united states virgin islands, virgin islands of united states',
    'VN': 'vietnam',
    'YE': 'yemen rep',
    'ZA': 'rsa',
}
# What a state calls itself before its name, or after it: `Republic of`, `Iran, Islamic Republic of`.
_FORM = (
    '(?:(?:arab|bolivarian|democratic|eastern|federal|federated|federative|grand|hashemite|independent|islamic|peoples|plurinational|'
    'socialist|united) )*(?:commonwealth|duchy|kingdom|principality|republic|state|states|sultanate|union) of'
)
_FORMAL = re.compile(f'{_FORM} (.+)|(.+?) {_FORM}')
_LONGEST = 80  # [characters] of a name; what is longer names no country


@dataclass(frozen=True, kw_only=True)
class Country:
    """A country or territory with a code of its own."""

    alpha2: str
    alpha3: str
    name: str
    region: str  # a key of REGIONS
    member: bool  # of the World Health Organization
    populous: bool  # more than 50 million people


@functools.cache
def countries() -> dict[str, Country]:
    """Two-letter code to country: the 194 member states of the WHO first, then the territories and states that are none."""
    found = {}
    for member, table in ((True, _MEMBERS), (False, _OTHERS)):
        for region, text in table.items():
            for entry in text.split('; '):
                alpha2, alpha3, name = entry.split(' ', 2)
                found[alpha2] = Country(
                    alpha2=alpha2, alpha3=alpha3, name=name, region=region, member=member, populous=alpha2 in _POPULOUS
                )
    return found


def find(word: str) -> Country | None:
    """The country a word names: its code of two or three letters, its English name, or another common word for it, in any case.

    None where it names none, or could name two (`Korea`). `NA` is Namibia, so a caller who writes it for what is missing asks first.
    """
    if len(word) > _LONGEST:
        return None
    plain = _plain(word)
    formal = _FORMAL.fullmatch(plain)
    return _by_word().get(plain) or (_by_word().get(formal[1] or formal[2]) if formal else None)


@functools.cache
def _by_word() -> dict[str, Country]:
    found = {}
    for country in countries().values():
        for word in (country.alpha2, country.alpha3, country.name, *_WORDS.get(country.alpha2, '').split(', ')):
            if word:
                found[_plain(word)] = country
    return found


def _plain(word: str) -> str:
    """Lower case without accents, points and articles; `and` for `&`, `saint` for `St.`."""
    letters = unicodedata.normalize('NFKD', word.casefold().replace('&', ' and ').replace('ø', 'o').replace('ı', 'i'))
    letters = ''.join(letter for letter in letters if not unicodedata.combining(letter) and letter not in "'’.")
    words = re.sub(r'[\W_]+', ' ', letters).split()
    return ' '.join('saint' if one == 'st' else one for one in words if one != 'the' or len(words) == 1)
